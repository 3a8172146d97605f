"""Passages out of texts: an index, and its search by words and by meaning. It imports `common` and `data`."""
