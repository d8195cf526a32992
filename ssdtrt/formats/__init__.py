"""The formats of saved files: how their bytes are checked, and where their metadata is. Imports no torch."""
