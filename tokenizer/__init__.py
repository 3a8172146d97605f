"""Tokenizers: learning them, their special tokens, and how well they serve each script. It imports no recipe."""
