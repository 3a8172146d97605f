"""Commands (one file each), and the rooms that they share; docs/architecture.md draws them."""
