"""The ground floor: errors, the command line, files, processes and hardware. It imports `weft` only."""
