"""Make one HTML page of saved reports, without torch."""
