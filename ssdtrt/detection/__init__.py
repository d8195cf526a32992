"""What becomes of detections: postprocessing, batches, drawing and output files."""
