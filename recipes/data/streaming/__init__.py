"""Text that is read block by block while it is trained on."""
