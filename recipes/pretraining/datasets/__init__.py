"""Rows, masks and batches of the objectives."""
