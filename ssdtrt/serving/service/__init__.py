"""A service on Ray Serve: pictures come by HTTP, and their detections go back as JSON."""
