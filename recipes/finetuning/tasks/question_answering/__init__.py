"""Answers that are parts of a given text."""
