"""The road from a text to a language model in so many minutes: Weft beside the training loops of other projects."""
