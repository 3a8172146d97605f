"""A run that takes a given time: what fits into it, and how it follows the machine."""
