"""Embeddings and rerankers over sentence-transformers, an optional package that is imported where it is used."""
