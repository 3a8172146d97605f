"""Classification of texts and of pairs of texts: one label, several, or a number."""
