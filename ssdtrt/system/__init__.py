"""This machine: its files, locks, devices, versions, and what its GPU reports."""
