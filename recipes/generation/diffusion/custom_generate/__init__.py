"""What `generate` of transformers loads from a folder; `generate.py` is copied beside the models that it is for."""
