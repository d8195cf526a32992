"""Saved files: how they are recorded, checked, loaded and called."""
