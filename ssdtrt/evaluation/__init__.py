"""Detections compared with annotated pictures: COCO's annotation files, its figures, and their report."""
