"""Measure JPEG files to JSON lines: how fast, what holds the rest, and whether memory stays where it is.

    python benchmarks/files.py ENGINE --json FILE [--pictures 100000] [--files 20000] [--cores 16] [--decode gpu] [--part all]

The files are seeded parts of the sample photographs, 640x480, and `--pictures` links to them; with `--broken` one in so many
is cut off instead. Each measurement is a process of its own. Its rate is counted from the first byte that is read to the
last line that is written, behind imports and loading; the whole time of the process stands beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

QUALITY = 91
SAMPLE_SECONDS = 1.0
PARTS = ("all", "no-network", "read")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", nargs="+")
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--broken", type=int, default=1000)
    parser.add_argument(
        "--cores", type=int, action="append", help="how many cores it may use; several times for several"
    )
    parser.add_argument("--decode", action="append", choices=("gpu", "cpu"))
    parser.add_argument(
        "--part", action="append", choices=PARTS, help="all of it, all but the network, or reading alone (default all)"
    )
    parser.add_argument("--folder", type=Path, default=Path("jpegs"), help="where the files are or will be")
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Write the files, then measure each engine with each number of cores and each way to decode."""
    options = parse(arguments)
    started = time.perf_counter()
    size = write_files(options.folder, options.files, options.pictures, options.broken)
    print(f"{options.files} files of {size:,.0f} bytes on average in {time.perf_counter() - started:.0f} s", flush=True)
    report: dict[str, Any] = {"mean_file_bytes": size, "files": options.files, "runs": []}
    for engine in options.engine:
        for cores in options.cores or [len(os.sched_getaffinity(0))]:
            for decode in options.decode or ["gpu", "cpu"]:
                for part in options.part or PARTS[:1]:
                    run = in_a_process(engine, options.folder, cores, decode, part)
                    report["runs"].append(run)
                    print(json.dumps({key: value for key, value in run.items() if key != "memory"}), flush=True)
                    options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def write_files(folder: Path, files: int, pictures: int, broken: int) -> float:
    """Write the files and the links, unless they are there; return the mean size of a file in bytes."""
    stored, links = folder / "files", folder / "links"
    if not links.exists():
        stored.mkdir(parents=True)
        with ProcessPoolExecutor() as pool:
            list(pool.map(write_some, [(stored, first, min(first + 100, files)) for first in range(0, files, 100)]))
        half = (stored / f"{0:06d}.jpg").read_bytes()
        (stored / "broken.jpg").write_bytes(half[: len(half) // 2])
        making = folder / "making"
        making.mkdir()
        for index in range(pictures):
            name = "broken" if broken and index % broken == broken // 2 else f"{index % files:06d}"
            (making / f"{index:07d}.jpg").symlink_to(Path("..", "files", f"{name}.jpg"))
        making.rename(links)
    sizes = [entry.stat().st_size for entry in os.scandir(stored) if entry.name != "broken.jpg"]
    return sum(sizes) / len(sizes)


def write_some(job: tuple[Path, int, int]) -> None:
    """Write files number `first` to `end`."""
    folder, first, end = job
    photographs = sample_photographs()
    for index in range(first, end):
        part_of(photographs, index).save(folder / f"{index:06d}.jpg", quality=QUALITY)


def sample_photographs() -> list[Image.Image]:
    """The photographs of the package."""
    from ssdtrt.run import SAMPLES

    return [Image.open(path).convert("RGB") for path in sorted(SAMPLES.glob("*.jpg"))]


def part_of(photographs: list[Image.Image], index: int) -> Image.Image:
    """Picture number `index`: a seeded part of a photograph, 640x480, with the grain of a camera."""
    random, picture = np.random.default_rng(index), photographs[index % len(photographs)]
    width = min(picture.width, picture.height * 4 / 3) * random.uniform(0.6, 1.0)
    left, top = random.uniform(0, picture.width - width), random.uniform(0, picture.height - width * 3 / 4)
    box = (left, top, left + width, top + width * 3 / 4)
    part = picture.resize((640, 480), Image.Resampling.BICUBIC, box=box)
    grained = np.asarray(part) + random.normal(0, 4, (480, 640, 3))
    return Image.fromarray(grained.clip(0, 255).astype(np.uint8))


def in_a_process(engine: str, folder: Path, cores: int, decode: str, part: str) -> dict[str, Any]:
    """Measure in a new process that may use so many cores; return what it found, with its whole time."""
    words = [sys.executable, __file__, "--one", engine, str(folder / "links"), decode, part]
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    started = time.perf_counter()
    done = subprocess.run(
        words, stdout=subprocess.PIPE, text=True, check=True, preexec_fn=lambda: os.sched_setaffinity(0, allowed)
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return {"engine": Path(engine).name, "cores": len(allowed), **found, "wall_seconds": time.perf_counter() - started}


def one(engine: str, folder: str, decode: str, part: str = PARTS[0]) -> dict[str, Any]:
    """Detect in all files of a folder, and write JSON lines."""
    import torch

    from ssdtrt.detect import Detector, detect_files
    from ssdtrt.sinks.json_sinks import JsonLinesSink
    from ssdtrt.system.versions import measured_on

    detector = Detector(engine, decode=decode)
    paths = [Path(folder, name) for name in sorted(os.listdir(folder))]
    if part == "read":
        return {"part": part, "decode": decode} | read_alone(detector, paths, decode)
    if part == "no-network":  # Its result is there at once: nothing is detected.
        nothing = torch.zeros(detector.batch_size, detector.max_detections + 1, 6)
        detector.batches.start = lambda images: lambda: nothing[: len(images)]
    target = Path(folder).parent / "lines.jsonl"
    failures: list[Any] = []
    memory: list[dict[str, float]] = []
    over = threading.Event()
    sampler = threading.Thread(target=sample, args=(memory, over), daemon=True)
    sampler.start()
    used, in_thread = time.process_time(), time.thread_time()
    summary = detect_files(detector, paths, [JsonLinesSink(target, detector.runner.labels)], failures, len(paths))
    used, in_thread = time.process_time() - used, time.thread_time() - in_thread
    over.set()
    sampler.join()
    with open(target, "rb") as lines:
        written = sum(1 for _ in lines)
    assert written + len(failures) == len(paths), (written, len(failures), len(paths))
    return {
        "part": part,
        "decode": decode,
        "precision": detector.runner.precision,
        "batch_size": detector.batch_size,
        "workers": detector.workers,
        "pictures": len(paths),
        "failures": len(failures),
        "detections": summary.detections,
        "seconds": summary.seconds,
        "images_per_second": len(paths) / summary.seconds,
        "main_process_cpu_us_a_picture": used / len(paths) * 1e6,
        "main_thread_cpu_us_a_picture": in_thread / len(paths) * 1e6,
        "stages": [stage.as_dict() for stage in summary.stages],
        "machine": measured_on(detector.device).as_dict(),
        "memory": memory,
    }


def read_alone(detector: Any, paths: list[Path], decode: str) -> dict[str, Any]:
    """Take the pictures from the processes that read them, and nothing more."""
    from ssdtrt.reading.reader import PictureReader

    depth, held = 2 * max(detector.batch_size, detector.workers), 3 * detector.batch_size
    reader = PictureReader(detector.runner.preprocess, True, detector.workers, depth, jpegs=decode == "gpu")
    started, in_thread = 0.0, 0.0
    for picture in reader.with_processes(paths, held, detector.device, detector.device.type == "cuda"):
        if not started:  # The processes have started.
            started, in_thread = time.perf_counter(), time.thread_time()
        if not isinstance(picture, Exception):
            picture.release()
    seconds, in_thread = time.perf_counter() - started, time.thread_time() - in_thread
    return {"pictures": len(paths), "workers": detector.workers, "images_per_second": len(paths) / seconds,
            "main_thread_cpu_us_a_picture": in_thread / len(paths) * 1e6}  # fmt: skip


def sample(memory: list[dict[str, float]], over: threading.Event) -> None:
    """Note once a second the memory of this process, of its children, and of the GPU, in MiB."""
    import torch

    page = os.sysconf("SC_PAGE_SIZE") / 2**20
    started = time.perf_counter()
    while not over.wait(SAMPLE_SECONDS):
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        sizes = [rss(Path("/proc", child)) for child in children]
        row = {"seconds": time.perf_counter() - started, "process": rss(Path("/proc/self")) * page,
               "children": sum(sizes) * page}  # fmt: skip
        if torch.cuda.is_available():
            free, whole = torch.cuda.mem_get_info()
            row["gpu"] = (whole - free) / 2**20
        memory.append(row)


def rss(process: Path) -> int:
    """The resident pages of a process; 0 for one that is gone."""
    try:
        return int((process / "statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(*sys.argv[2:])))
    else:
        main()
