"""A fine-tuning run from its fields to a published model. It imports data, training, generation and common."""
