"""What `ssdtrt doctor` looks at, and the findings that follow from it."""
