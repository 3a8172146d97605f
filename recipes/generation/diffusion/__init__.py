"""Text written by a masked language model, in any order. As a folder it is one for `generate(custom_generate=...)`."""
