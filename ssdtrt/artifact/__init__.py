"""What saved files record, how that is read, and the requests that they are built from."""
