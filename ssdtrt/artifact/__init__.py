"""Saved files: what they record, how that is read and checked, and the requests that they are built from."""
