"""Weft beside what people use today, measured in one go."""
