"""Engine files in the form that the Triton Inference Server takes, and checks of such a server against the file itself."""
