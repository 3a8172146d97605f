"""Checkpoints to and from other families. It imports `common` and `training`."""
