"""Videos and streams as a source: frames ahead of the network, their detections, annotated videos and JSON lines."""
