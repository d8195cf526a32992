"""Measure `ssdtrt detect --ray`: what is lost when processes and machines die, and how fast it is beside `ssdtrt detect`.

    python benchmarks/ray_data.py faults --json FILE [--pictures 10000]
    python benchmarks/ray_data.py speed ENGINE --json FILE [--folder jpegs] [--pictures 100000] [--actors 1 2] [--decode gpu cpu]

`faults` needs no GPU: small generated pictures, one in a hundred cut off, and a CPU engine of the narrow network of the tests,
on a cluster of two nodes of this machine. On the way an actor is killed, the driver is killed and started again, and a
node is removed; the rows are compared with the JSON lines of `ssdtrt detect`. `speed` measures the pictures of a folder, as
`files.py` writes it where it is not there, with `ssdtrt detect` and on a cluster of this machine with each number of actors: the
rate in steady state, between the first and the last tenth. What fails or takes too long has a row with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from files import write_files

from ssdtrt import config
from ssdtrt.clusters.batch import ClusterOptions, detect_on_cluster
from ssdtrt.clusters.records import BatchSettings
from ssdtrt.detect import Detector, detect_files
from ssdtrt.sinks.json_sinks import JsonLinesSink
from ssdtrt.system.versions import installed, measured_on

TESTS = Path(__file__).parent.parent / "tests"
BLOCK = 100  # pictures of a block of `faults`
CORRUPT = 100  # one in so many is cut off
EVENTS = (0.2, 0.4, 0.6)  # after which share of the blocks a worker, the driver and a node end
MORE_BACKGROUND = 7.0  # added to the logit of the background
CPUS = (3, 3)  # logical CPUs of the nodes of `faults`


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("faults")
    one.add_argument("--pictures", type=int, default=10_000)
    other = commands.add_parser("speed")
    other.add_argument("engine")
    other.add_argument("--pictures", type=int, default=100_000)
    other.add_argument("--files", type=int, default=20_000)
    other.add_argument("--broken", type=int, default=1000)
    other.add_argument("--folder", type=Path, default=Path("jpegs"), help="where the files are or will be")
    other.add_argument("--actors", type=int, nargs="+", default=[1])
    other.add_argument("--decode", nargs="+", choices=("gpu", "cpu"), default=["gpu", "cpu"])
    other.add_argument("--block-size", type=int, default=config.RAY_BLOCK)
    other.add_argument("--cores", type=int, help="for each actor, and for detect; by default all of them for each case")
    other.add_argument("--timeout", type=float, default=600.0, help="seconds for a case, which is then given up")
    for command in (one, other):
        command.add_argument("--json", type=Path, required=True)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write the report."""
    options = parse(arguments)
    report = {"ray": installed("ray"), **faults(options.pictures)} if options.command == "faults" else speed(options)
    text = json.dumps(report, indent=1)
    options.json.write_text(text + "\n", encoding="utf-8")
    print(text)


def faults(pictures: int) -> dict[str, Any]:
    """Detect in generated pictures twice, once on a cluster whose parts die, and compare."""
    sys.path.append(str(TESTS))
    from ray_clusters import ray_cluster

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        engine = narrow_engine(folder)
        write_pictures(folder / "in", pictures)
        command = [sys.executable, "-m", "ssdtrt", "detect", engine, folder / "in", "-q"]
        began = time.perf_counter()
        subprocess.run(
            [*command, "--jsonl", folder / "found.jsonl", "--json", folder / "detect.json"], stderr=subprocess.PIPE
        )
        alone = time.perf_counter() - began
        with ray_cluster(*CPUS) as (cluster, (node,)):
            command += ["--ray", cluster.address, "-o", folder / "out", "--block-size", BLOCK, "--actors", 2]
            command += ["--json", folder / "report.json"]
            blocks = -(-pictures // BLOCK)
            events, seconds = run_with_deaths([str(word) for word in command], folder / "out", blocks, cluster, node)
        compared = compare(folder / "out", folder / "found.jsonl", folder / "detect.json")
        return {
            "machine": measured_on("cpu").as_dict(),
            "network": "SSD300 with a sixteenth of its channels, random weights, CPU engine in FP32",
            "pictures": pictures, "corrupt": len(range(CORRUPT // 2, pictures, CORRUPT)), "block_size": BLOCK,
            "events": events, "rows": compared,
            "seconds": {"detect": alone, "cluster_with_deaths": seconds},
            "report": json.loads((folder / "report.json").read_text().replace(f"{place}/", "")),
        }  # fmt: skip


def narrow_engine(folder: Path) -> Path:
    """Build a CPU engine of the narrow network, which finds about one object a picture: fewer candidates for NMS."""
    import forked_builds
    import narrow
    import torch

    from ssdtrt.compile import compile_engine
    from ssdtrt.export import export_module
    from ssdtrt.model.weights import build_model

    narrow.narrow()
    forked_builds.fork_builds()
    state = build_model("random").state_dict()
    for level, boxes in enumerate(config.BOXES_PER_CELL):
        state[f"conf.{level}.bias"][:boxes] += MORE_BACKGROUND
    torch.save({"model": state}, folder / "weights.pt")
    module = export_module(build_model(str(folder / "weights.pt")), folder / "ssd300.ts")
    return compile_engine(module, folder / "ssd300.engine.ts", backend="torchscript")


def write_pictures(folder: Path, count: int) -> None:
    """Write small seeded JPEGs of many sizes, of which one in CORRUPT is cut off."""
    from jpeg_files import jpeg

    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(count):
        content = jpeg(tuple(map(int, random.integers(64, 161, 2))), seed=index, quality=90)
        cut = index % CORRUPT == CORRUPT // 2
        (folder / f"{index:06d}.jpg").write_bytes(content[: len(content) // 2] if cut else content)


def run_with_deaths(command: list[str], out: Path, blocks: int, cluster: Any, node: Any) -> tuple[list[Any], float]:
    """Run a command that is killed and started again, while an actor is killed and a node is removed."""
    from ray_clusters import workers

    events: list[dict[str, Any]] = []
    began = time.perf_counter()

    def at(share: float, what: str, driver: subprocess.Popen[bytes], act: Callable[[], Any]) -> None:
        while len(list(out.glob("*.parquet"))) < share * blocks:
            if driver.poll() is not None:
                raise SystemExit(f"the command ended with {driver.returncode} before this: {what}")
            time.sleep(0.05)
        act()
        row = {"what": what, "blocks_there": len(list(out.glob("*.parquet"))), "seconds": time.perf_counter() - began}
        events.append(row)
        print(row, file=sys.stderr, flush=True)

    def kill_an_actor() -> None:
        os.kill(workers("BlockDetector")[0], signal.SIGKILL)

    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    at(EVENTS[0], "the process of an actor is killed", first, kill_an_actor)
    at(EVENTS[1], "the driver is killed", first, first.kill)
    first.wait()
    again = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    at(EVENTS[2], "a node is removed", again, lambda: cluster.remove_node(node, allow_graceful=False))
    events.append({"what": "the command has ended", "exit_code": again.wait(), "seconds": time.perf_counter() - began})
    return events, time.perf_counter() - began


def compare(out: Path, lines: Path, report: Path) -> dict[str, Any]:
    """Compare the rows of Parquet files with JSON lines, row by row."""
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(out).to_pylist()
    expected = {one["image"]: one for one in map(json.loads, lines.read_text().splitlines())}
    failures = set(json.loads(report.read_text())["failures"])
    paths = [row["path"] for row in rows]
    same = errors = 0
    scores, edges, other = [0.0], [0.0], []
    for row in rows:
        if row["error"] is not None:
            errors += 1
            other += [] if row["error"] in failures and row["path"] not in expected else [row["path"]]
            continue
        found = expected.get(row["path"], {"width": 0, "height": 0, "detections": []})
        boxes = [[round(edge, 2) for edge in box] for box in row["boxes"]]
        mine = list(zip(row["label_ids"], [round(score, 6) for score in row["scores"]], boxes))
        theirs = [(one["label_id"], one["score"], one["box"]) for one in found["detections"]]
        if row["size"] != {"width": found["width"], "height": found["height"]} or len(mine) != len(theirs):
            other.append(row["path"])
        same += mine == theirs
        for (label, score, box), (label_there, score_there, box_there) in zip(mine, theirs):
            if label == label_there:
                scores.append(abs(score - score_there))
                edges.append(max(abs(a - b) for a, b in zip(box, box_there)))
    return {
        "rows": len(rows), "different_paths": len(set(paths)), "errors": errors, "detections": sum(
            len(row["scores"] or ()) for row in rows
        ),
        "in_order": paths == sorted(paths), "identical": same, "largest_difference_of_a_score": max(scores),
        "largest_difference_of_an_edge": max(edges), "other_size_count_or_error": other[:20],
    }  # fmt: skip


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Measure a folder with `detect`, and on a cluster with each number of actors; the report is written after each."""
    size = write_files(options.folder, options.files, options.pictures, options.broken)
    report: dict[str, Any] = {
        "ray": installed("ray"), "engine": Path(options.engine).name, "mean_file_bytes": size, "runs": []
    }  # fmt: skip
    rates: dict[tuple[str, int], float] = {}
    for decode in options.decode:
        for actors in (0, *options.actors):
            run = measured(options, decode, actors)
            report.setdefault("machine", run.pop("machine", None))
            if rate := run.get("images_per_second"):
                rates[decode, actors] = rate
                for name, other in (("over_detect", 0), ("over_one_actor", 1)):
                    if actors > other and (decode, other) in rates:
                        run[name] = rate / rates[decode, other]
            print(json.dumps(run), file=sys.stderr, flush=True)
            report["runs"].append(run)
            options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def measured(options: argparse.Namespace, decode: str, actors: int) -> dict[str, Any]:
    """Measure in a process of its own, so that nothing of it is on a GPU afterwards; `detect` for no actors."""
    allowed = sorted(os.sched_getaffinity(0))[: options.cores and options.cores * max(1, actors)]
    case = {"by": "ray" if actors else "detect", "decode": decode, "actors": actors, "cores": len(allowed)}
    with tempfile.TemporaryDirectory() as place:
        words = [sys.executable, __file__, "--one", options.engine, options.folder / "links", decode, actors,
                 options.block_size, place]  # fmt: skip
        began = time.perf_counter()
        child = subprocess.Popen(
            list(map(str, words)), stdout=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, allowed),
        )  # fmt: skip
        try:
            output = child.communicate(timeout=options.timeout)[0]
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            return {**case, "error": f"not done after {options.timeout:g} s"}
    if child.returncode:
        return {**case, "error": f"exit code {child.returncode}"}
    return {**case, **json.loads(output.splitlines()[-1]), "wall_seconds": time.perf_counter() - began}


def one(engine: str, folder: str, decode: str, actors: str, block_size: str, place: str) -> dict[str, Any]:
    """Measure here."""
    if int(actors):
        return detect_with_ray(engine, folder, decode, int(actors), int(block_size), Path(place))
    return detect_alone(engine, folder, decode, Path(place))


def detect_alone(engine: str, folder: str, decode: str, place: Path) -> dict[str, Any]:
    """Detect in the files of a folder, and write JSON lines."""
    detector, times, failures = Detector(engine, decode=decode), list[float](), list[Any]()
    paths = sorted(Path(folder).iterdir())
    sink = JsonLinesSink(place / "found.jsonl", detector.runner.labels)
    note = lambda _: times.append(time.perf_counter())  # noqa: E731
    summary = detect_files(detector, paths, [sink], failures, len(paths), each=note)
    facts = {"errors": len(failures), "seconds": summary.seconds, "machine": measured_on(detector.device).as_dict()}
    return {**facts, **steady([(one, 1) for one in times])}


def detect_with_ray(engine: str, folder: str, decode: str, actors: int, block_size: int, place: Path) -> dict[str, Any]:
    """Detect on a cluster of this machine."""
    marks: list[tuple[float, int]] = []
    report = detect_on_cluster(
        engine, [folder], place / "out", ClusterOptions(actors=actors, block_size=block_size), BatchSettings(decode=decode),
        progress=lambda line: print(line, file=sys.stderr) if "[" not in line else None,
        each=lambda one: marks.append((time.perf_counter(), one.pictures)),
    )  # fmt: skip
    facts = {"decode": report.decoded_on, "actors": report.actors, "block_size": block_size, "errors": report.errors}
    return {**facts, "seconds": report.seconds, **steady(marks)}


def steady(marks: list[tuple[float, int]]) -> dict[str, Any]:
    """The rate between the first and the last tenth of what was done: [(when, how many pictures)]."""
    done = np.cumsum([count for _, count in marks])
    first, last = np.searchsorted(done, [0.1 * done[-1], 0.9 * done[-1]])
    rate = (done[last] - done[first]) / (marks[last][0] - marks[first][0])
    return {"pictures": int(done[-1]), "images_per_second": float(rate)}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(*sys.argv[2:])))
    else:
        main()
