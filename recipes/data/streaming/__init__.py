"""Text that is read block by block while a model trains on it."""
