"""Learning from a teacher: a trained model is asked about each target, and its answers are learnt beside the text."""
