"""Labels for words and spans: names, chunks, parts of speech."""
