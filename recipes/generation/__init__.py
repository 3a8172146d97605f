"""Text out of a checkpoint. It imports `common`."""
