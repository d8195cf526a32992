"""Detect objects in pictures with a running service: python detect.py http://127.0.0.1:8000 PICTURE..."""

import json
import sys
import urllib.request

url, *pictures = sys.argv[1:]
for picture in pictures:
    with open(picture, "rb") as file:
        request = urllib.request.Request(f"{url}/detect", data=file.read())
    with urllib.request.urlopen(request, timeout=60) as answer:
        for one in json.load(answer)["detections"]:
            print(picture, one["label"], one["score"], *one["box"])
