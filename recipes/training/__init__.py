"""What every training shares: Trainer, checkpoints, sharding, optimizers, folders, cards. It imports `common`."""
