"""One task a folder, each with the same files."""
