"""Saved files: what they record, how they are checked, loaded and called."""
