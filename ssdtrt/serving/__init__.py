"""Files in the forms that other servers take, and checks of such a server against the file itself."""
