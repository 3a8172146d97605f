"""One objective a file, with its whole contract."""
