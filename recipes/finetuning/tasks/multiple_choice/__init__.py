"""The right one among several texts."""
