"""The service on Ray Serve; and files in the forms that other servers take, with checks of such servers."""
