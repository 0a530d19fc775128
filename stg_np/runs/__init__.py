"""A run on disk: its description, checkpoint, folder and pictures."""
