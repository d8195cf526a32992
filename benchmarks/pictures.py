"""Measure everything around the engine: decoding and NMS, images on the GPU to detections, JPEG files to JSON lines.

    python benchmarks/pictures.py ENGINE --json FILE

ENGINE is an engine or detector of batch 32. The network's outputs for decoding and NMS are the random network's for 32
seeded pictures, with the background's logit raised, by the same amount for all, until a picture has a hundred
detections on average. The files are different parts of the sample photographs, as 640x480 JPEGs.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image

from ssdtrt import config
from ssdtrt.detect import Detector, detect_files
from ssdtrt.detection.postprocessor import Postprocessor
from ssdtrt.images.decode import load_image
from ssdtrt.images.tensors import synthetic_images, synthetic_pictures
from ssdtrt.model.boxes import decode_boxes
from ssdtrt.model.nms import detect_batch, detect_exact
from ssdtrt.model.weights import build_model
from ssdtrt.run import SAMPLES
from ssdtrt.runners import torchscript
from ssdtrt.sinks.json_sinks import JsonLinesSink
from ssdtrt.system.devices import tf32_disabled
from ssdtrt.system.versions import measured_on

DETECTIONS = 100
BATCH_SIZES = (1, 8, 32)
CALLS = 60
PROCESSES = (15, 14, 8, 4)
FILES = 1000


def main():
    """Measure, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine")
    parser.add_argument("--json", required=True)
    parser.add_argument("--repeat", type=int, default=5, help="how often the files are gone through at least")
    options = parser.parse_args()
    detector = Detector(options.engine)
    with torch.no_grad(), tf32_disabled():
        report = {
            "machine": measured_on(detector.device).as_dict(),
            "decode_and_nms": decoding(detector.device),
            "gpu_to_host": gpu_to_host(detector),
            "files_to_json_lines": files_to_json_lines(options.engine, options.repeat),
        }
    text = json.dumps(report, indent=1)
    Path(options.json).write_text(text + "\n", encoding="utf-8")
    print(text)


def decoding(device):
    """Time loc and conf on the device to detections on the host, in milliseconds, by batch size and way."""
    loc, conf, bias = heads(device)
    rows = []
    for size in BATCH_SIZES:
        some = loc[:size].contiguous(), conf[:size].contiguous()
        postprocessor = Postprocessor(device)
        defaults = postprocessor.default_boxes
        ways = {
            "decoder": lambda: postprocessor(*some),
            "torchscript": scripted(some, defaults),
            "exact": lambda: detect_exact(*some, defaults).cpu(),
            "naive": lambda: naive(*some, defaults),
        }
        exact, found = detect_exact(*some, defaults).cpu(), postprocessor(*some)
        same = [bool(torch.allclose(found[i, :-1], exact[i, :-1], rtol=0, atol=1e-6)) for i in range(size)]
        rows.append({"batch_size": size, "same_as_exact": sum(same), **{way: wall(call) for way, call in ways.items()}})
    counts = detect_batch(loc, conf, defaults)[3].float()
    candidates = (conf.softmax(dim=1)[:, 1:] > config.MIN_SCORE).sum(dim=(1, 2)).float()
    return {
        "unit": "ms, host clock, a call and the wait for its result",
        "background_raised_by": bias,
        "detections_a_picture": float(counts.mean()),
        "candidates_a_picture": float(candidates.mean()),
        "rows": rows,
    }


def heads(device):
    """Return loc, conf [32, ...] with about DETECTIONS a picture, and how far the background was raised."""
    loc, conf = build_model("random").to(device)(synthetic_images(32, seed=5).to(device))
    defaults = Postprocessor(device).default_boxes
    low, high = 0.0, 20.0
    for _ in range(14):
        middle = (low + high) / 2
        raised = torch.cat([conf[:, :1] + middle, conf[:, 1:]], dim=1)
        many = float(detect_batch(loc, raised, defaults)[3].float().mean()) > DETECTIONS
        low, high = (middle, high) if many else (low, middle)
    return loc, torch.cat([conf[:, :1] + high, conf[:, 1:]], dim=1), high


def scripted(some, defaults):
    """Return what a detector file does after its engine."""
    with torchscript.quiet():
        function = torch.jit.script(detect_batch)
    return lambda: [part.cpu() for part in function(*some, defaults)]


def naive(loc, conf, defaults):
    """Take the top scores and torchvision's batched_nms, a picture at a time: what one would write first."""
    boxes, scores = decode_boxes(loc, conf, defaults)
    found = []
    for i in range(len(loc)):
        score, index = scores[i, :, 1:].flatten().topk(400)
        good = score > config.MIN_SCORE
        score, index = score[good], index[good]
        label, box = index % (conf.shape[1] - 1), boxes[i][index // (conf.shape[1] - 1)]
        kept = torchvision.ops.batched_nms(box, score, label, config.NMS_IOU)[: config.MAX_DETECTIONS]
        found.append((box[kept].cpu(), label[kept].cpu(), score[kept].cpu()))
    return found


def gpu_to_host(detector):
    """Time uint8 batches on the device to detections on the host: milliseconds and images a second."""
    size = detector.batch_size
    batches = [synthetic_pictures(size, seed=seed).to(detector.device) for seed in range(4)]
    calls = iter(range(10**9))
    milliseconds = wall(lambda: detector.start(batches[next(calls) % 4])())
    network = wall(lambda: (detector.runner(batches[0].float()), synchronize()))
    return {
        "batch_size": size,
        "ms": milliseconds,
        "network_alone_ms": network,
        "images_per_second": size / milliseconds["median"] * 1e3,
        "trained": detector.runner.trained,
    }


def files_to_json_lines(engine, repeat):
    """Time JPEG files on disk to JSON lines on disk, at the default threshold, for several numbers of reader processes.

    With one for each core, up to 16, the files are gone through four times as often.
    """
    with tempfile.TemporaryDirectory() as place:
        files, target = write_photographs(Path(place)), Path(place, "out.jsonl")
        size = sum(path.stat().st_size for path in files) / len(files)
        runs = [one_run(Detector(engine), files, repeat * 4, target)]
        runs += [one_run(Detector(engine, workers=workers), files, repeat, target) for workers in PROCESSES]
    return {"width": 640, "height": 480, "mean_file_bytes": size, "files": len(files), "runs": runs}


def one_run(detector, files, repeat, target):
    """Measure the rate, the rate after the first tenth of the pictures, and how much of one core this process takes."""
    labels, seen = detector.runner.labels, []
    detect_files(detector, files[:200], [JsonLinesSink(target, labels)])  # Warm up.
    started, used = time.perf_counter(), time.process_time()
    sinks = [JsonLinesSink(target, labels)]
    summary = detect_files(detector, files * repeat, sinks, each=lambda _: seen.append(time.perf_counter()))
    share = (time.process_time() - used) / (time.perf_counter() - started)
    assert len(target.read_text().splitlines()) == summary.pictures == len(files) * repeat
    tenth = len(seen) // 10
    return {
        "workers": detector.workers,
        "images_per_second": summary.images_per_second,
        "images_per_second_after_the_first_tenth": (len(seen) - tenth) / (seen[-1] - seen[tenth - 1]),
        "seconds_to_the_first": seen[0] - started,
        "share_of_a_core_of_the_main_process": share,
        "pictures": summary.pictures,
        "detections": summary.detections,
    }


def write_photographs(folder):
    """Write FILES seeded parts of the sample photographs as 640x480 JPEGs; return their paths."""
    random = np.random.default_rng(0)
    photographs = [load_image(path) for path in sorted(SAMPLES.glob("*.jpg"))]
    paths = [folder / f"{index:04d}.jpg" for index in range(FILES)]
    for index, path in enumerate(paths):
        picture = photographs[index % len(photographs)]
        share = random.uniform(0.6, 1.0)
        width = min(picture.width, picture.height * 4 / 3) * share
        left, top = random.uniform(0, picture.width - width), random.uniform(0, picture.height - width * 3 / 4)
        part = picture.resize((640, 480), Image.Resampling.BICUBIC, box=(left, top, left + width, top + width * 3 / 4))
        part.save(path, quality=95)
    return paths


def wall(call):
    """Return the median and the 90th percentile of CALLS host times, after 15 calls to warm up."""
    times = []
    for index in range(CALLS + 15):
        synchronize()
        started = time.perf_counter()
        call()
        if index >= 15:
            times.append((time.perf_counter() - started) * 1e3)
    return {"median": statistics.median(times), "p90": sorted(times)[int(0.9 * len(times))]}


def synchronize():
    """Wait for the GPU where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
