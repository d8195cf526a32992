"""Measure what Python does for a picture between the packed detections on the host and the JSON line on disk.

    python benchmarks/results.py --json FILE

No network and no GPU: batches of seeded packed detections of pictures of 640x480 go through `unpack`, the loop of
`detect_files` and a JsonLinesSink on a file. A part's time is that of a run with it less that of a run without. For
each the least CPU time of the repetitions counts, because the machine may be shared.
"""

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from ssdtrt import config
from ssdtrt.detection.unpacking import Chosen, unpack
from ssdtrt.images.decode import load_image
from ssdtrt.reading.reader import PreparedPicture
from ssdtrt.reading.stage_times import StageTimes
from ssdtrt.sinks.files import detect_files
from ssdtrt.sinks.json_sinks import JsonLinesSink
from ssdtrt.system.versions import measured_on

BATCH_SIZES = (1, 32, 128)
DETECTIONS = (8, 20, 100)
PICTURES = 2048
SIZE = 640, 480
THRESHOLD = 0.5


def main():
    """Measure, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", required=True)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--pictures", type=int, default=PICTURES)
    options = parser.parse_args()
    cases = [(size, count) for size in BATCH_SIZES for count in DETECTIONS]
    rows = [measure(size, count, options.pictures, options.repeat) for size, count in cases]
    report = {
        "machine": measured_on("cpu").as_dict(),
        "unit": "microseconds a picture, CPU time of the process, the least of the repetitions",
    }
    report |= {"pictures": options.pictures, "repetitions": options.repeat, "rows": rows}
    text = json.dumps(report, indent=1)
    Path(options.json).write_text(text + "\n", encoding="utf-8")
    print(text)


def measure(batch_size, detections, pictures, repeat):
    """Return the microseconds that a picture takes in each part."""
    made = [made_up(batch_size, detections, number) for number in range(pictures // batch_size)]
    with tempfile.TemporaryDirectory() as folder:
        sink = partial(JsonLinesSink, Path(folder, "out.jsonl"), config.COCO_LABELS)
        ways = {
            "unpacked": lambda: [None for _ in stream_batches(made)],
            "counted": lambda: run(made, []),
            "written": lambda: run(made, [sink()]),
            "one_by_one": lambda: [None for batch in stream_batches(made) for _ in batch],
        }
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(repeat):  # In turns, so that what else the machine does falls on all.
            for way, call in ways.items():
                started = time.process_time()
                call()
                best[way] = min(best[way], time.process_time() - started)
        size = Path(folder, "out.jsonl").stat().st_size
    each = {way: seconds / (len(made) * batch_size) * 1e6 for way, seconds in best.items()}
    parts = {
        "unpack": each["unpacked"],
        "loop": each["counted"] - each["unpacked"],
        "json_lines": each["written"] - each["counted"],
        "all": each["written"],
        "detections_one_by_one": each["one_by_one"] - each["unpacked"],
    }
    rounded = {part: round(value, 2) for part, value in parts.items()}
    line = round(size / (len(made) * batch_size))
    return {"batch_size": batch_size, "detections": detections, "bytes_of_a_line": line, **rounded}


def made_up(batch_size, detections, number):
    """Return packed detections [N, K + 1, 6], about `detections` of a picture from THRESHOLD on, and their pictures."""
    random = np.random.default_rng(number)
    packed = np.zeros((batch_size, config.MAX_DETECTIONS + 1, 6), np.float32)
    counts = random.integers(detections - detections // 4, detections + detections // 4 + 1, batch_size)
    scores = np.where(np.arange(config.MAX_DETECTIONS) < counts[:, None], THRESHOLD, 0.06)
    scores += random.uniform(0, 0.4, scores.shape)
    packed[:, :-1, 5] = -np.sort(-scores, axis=1)
    packed[:, :-1, 4] = random.integers(1, len(config.COCO_LABELS), scores.shape)
    packed[:, :-1, :4] = np.sort(random.uniform(-0.02, 1.02, (*scores.shape, 2, 2)), axis=2).reshape(*scores.shape, 4)
    packed[:, -1, 0] = config.MAX_DETECTIONS
    pixels = np.zeros((1, 1, 3), np.uint8)
    first = number * batch_size
    names = [f"/data/pictures/{index:06d}.jpg" for index in range(first, first + batch_size)]
    return [PreparedPicture(first + place, name, SIZE, pixels, name) for place, name in enumerate(names)], packed


def stream_batches(made, *_):
    """Yield the batches as a Detector does."""
    load = partial(load_image, orient=True, value_range=None, max_pixels=None)
    chosen = Chosen(THRESHOLD, None, config.MAX_DETECTIONS)
    for pictures, packed in made:
        for one in pictures:
            one.release()
        yield unpack(packed, pictures, chosen, "eval", config.COCO_LABELS, load)


def run(made, sinks):
    """Do what `detect` does with many pictures, without a network."""
    detector = SimpleNamespace(
        runner=SimpleNamespace(labels=config.COCO_LABELS),
        times=StageTimes(),
        stream_batches=partial(stream_batches, made),
    )
    pictures = sum(len(batch) for batch, _ in made)
    assert detect_files(detector, [], sinks, total=pictures).pictures == pictures


if __name__ == "__main__":
    main()
