"""Load for a running service, with the JPEGs of a folder; how to run it is in examples/README.md."""

import os
import random
import time
from pathlib import Path

from locust import HttpUser, task

PICTURES = [path.read_bytes() for path in sorted(Path(os.environ["PICTURES"]).glob("*.jpg"))]


class Client(HttpUser):
    """Sends one picture after the other, and waits as long as `Retry-After` says."""

    @task
    def detect(self):
        """Send a picture."""
        answer = self.client.post("/detect", data=random.choice(PICTURES), headers={"Content-Type": "image/jpeg"})
        time.sleep(int(answer.headers.get("Retry-After", 0)))
