"""COCO's annotations and figures."""
