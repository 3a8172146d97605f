"""Files of fields for the recipes, and of settings for launchers."""
