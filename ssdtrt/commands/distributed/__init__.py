"""Commands that use many machines."""
