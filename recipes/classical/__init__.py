"""What came before neural language models: n-grams, a hidden Markov model, word vectors. It imports data and common."""
