"""A text for a text: translation, summaries, titles."""
