"""How fast everything around the engine is: decoding and NMS, pictures on the GPU to detections, JPEG files to JSON lines.

    python benchmarks/pictures.py ENGINE --json FILE

ENGINE is an engine or detector of batch 32. The heads are the random network's outputs for 32 seeded pictures with the
background's logit raised, the same for all, until a picture has a hundred detections on average. The files are parts
of the sample photographs, each of its own, as 640x480 JPEGs.
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
from ssdtrt.detect import Detector
from ssdtrt.detection.postprocessor import Postprocessor
from ssdtrt.detection.sinks import JsonLinesSink, detect_files
from ssdtrt.images.decode import load_image
from ssdtrt.images.tensors import synthetic_images, synthetic_pictures
from ssdtrt.model.boxes import decode_boxes
from ssdtrt.model.nms import detect_batch, detect_exact
from ssdtrt.model.weights import build_model
from ssdtrt.run import SAMPLES
from ssdtrt.system.devices import tf32_disabled
from ssdtrt.system.versions import installed_versions, this_machine

DETECTIONS = 100
CALLS = 60
FILES = 1000


def main():
    """Measures, prints and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine")
    parser.add_argument("--json", required=True)
    parser.add_argument("--repeat", type=int, default=5, help="how often the files are gone through at least")
    options = parser.parse_args()
    detector = Detector(options.engine)
    with torch.no_grad(), tf32_disabled():
        report = {
            "machine": {**this_machine(detector.device), "versions": installed_versions()},
            "decode_and_nms": decoding(detector.device),
            "gpu_to_host": gpu_to_host(detector),
            "files_to_json_lines": files_to_json_lines(options.engine, options.repeat),
        }
    text = json.dumps(report, indent=1)
    Path(options.json).write_text(text + "\n", encoding="utf-8")
    print(text)


def decoding(device):
    """Milliseconds for loc and conf on the device to detections on the host, by batch size and way."""
    loc, conf, bias = heads(device)
    rows = []
    for size in (1, 8, 32):
        some = loc[:size].contiguous(), conf[:size].contiguous()
        decoder = Postprocessor(device)
        ways = {
            "decoder": lambda: decoder(*some),
            "torchscript": scripted(some, decoder.default_boxes),
            "exact": lambda: detect_exact(*some, decoder.default_boxes).cpu(),
            "naive": lambda: naive(*some, decoder.default_boxes),
        }
        exact = detect_exact(*some, decoder.default_boxes).cpu()
        same = [bool(torch.allclose(decoder(*some)[i, :-1], exact[i, :-1], rtol=0, atol=1e-6)) for i in range(size)]
        rows.append({"batch_size": size, "same_as_exact": sum(same), **{way: wall(call) for way, call in ways.items()}})
    counts = detect_batch(loc, conf, decoder.default_boxes)[3].float()
    candidates = (conf.softmax(dim=1)[:, 1:] > config.MIN_SCORE).sum(dim=(1, 2)).float()
    return {
        "unit": "ms, host clock, a call and the wait for its result",
        "background_raised_by": bias,
        "detections_a_picture": float(counts.mean()),
        "candidates_a_picture": float(candidates.mean()),
        "rows": rows,
    }


def heads(device):
    """loc, conf [32, ...] with about DETECTIONS a picture, and how far the background was raised."""
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
    """What a detector file does after its engine."""
    function = torch.jit.script(detect_batch)
    return lambda: [part.cpu() for part in function(*some, defaults)]


def naive(loc, conf, defaults):
    """Top-k and torchvision's batched_nms, a picture at a time: what one would write first."""
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
    """uint8 batches on the device to detections on the host: milliseconds and images a second."""
    size = detector.batch_size
    batches = [synthetic_pictures(size, seed=seed).to(detector.device) for seed in range(4)]
    calls = iter(range(10**9))
    milliseconds = wall(lambda: detector.start(batches[next(calls) % 4])())
    network = wall(lambda: (detector.runner(batches[0].float()), torch.cuda.synchronize()))
    return {
        "batch_size": size,
        "ms": milliseconds,
        "network_alone_ms": network,
        "images_per_second": size / milliseconds["median"] * 1e3,
        "trained": detector.runner.trained,
    }


def files_to_json_lines(engine, repeat):
    """JPEG files on disk to JSON lines on disk, at the default threshold, with some numbers of processes that read.

    With as many as there are cores, up to 16, the files are gone through four times as often.
    """
    with tempfile.TemporaryDirectory() as place:
        files, target = write_photographs(Path(place)), Path(place, "out.jsonl")
        size = sum(path.stat().st_size for path in files) / len(files)
        runs = [one_run(Detector(engine), files, repeat * 4, target)]
        runs += [one_run(Detector(engine, workers=workers), files, repeat, target) for workers in (15, 14, 8, 4)]
    return {"width": 640, "height": 480, "mean_file_bytes": size, "files": len(files), "runs": runs}


def one_run(detector, files, repeat, target):
    """The rate, that after the first tenth of the pictures, and how much of one core this process took."""
    labels, seen = detector.runner.labels, []
    detect_files(detector, files[:200], [JsonLinesSink(target, labels)])  # to warm up
    started, used = time.perf_counter(), time.process_time()
    outputs = [JsonLinesSink(target, labels)]
    summary = detect_files(detector, files * repeat, outputs, each=lambda _: seen.append(time.perf_counter()))
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
    """FILES parts of the sample photographs, seeded, as 640x480 JPEGs."""
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
    """Median and 90th percentile of CALLS host times, after as many to warm up."""
    times = []
    for index in range(CALLS + 15):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        if index >= 15:
            times.append((time.perf_counter() - started) * 1e3)
    return {"median": statistics.median(times), "p90": sorted(times)[int(0.9 * len(times))]}


if __name__ == "__main__":
    main()
