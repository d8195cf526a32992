"""Parameters that several commands have: types that are checked, and groups of options."""
