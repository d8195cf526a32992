"""Where detections of many pictures go: folders of drawings, JSON lines, results of COCO."""
