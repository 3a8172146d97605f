"""Language models of all generations on the same text, tokenizer and held-out documents."""
