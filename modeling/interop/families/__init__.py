"""One family a file, as one declarative table `FAMILY`."""
