"""Likelihoods of a language model and the tasks that rest on them. It imports the rooms below: data, common."""
