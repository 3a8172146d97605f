"""From text to a prepared corpus. It imports `common` and `weft.tokenizer`."""
