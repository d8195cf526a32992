"""What the commands print: text from reports."""
