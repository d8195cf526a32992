"""Runs on a cluster of Ray with two nodes: the rows of `detect`, each once, whatever dies on the way."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command_line import ENVIRONMENT, lines_of
from PIL import Image
from ray_clusters import ray_cluster, workers

from known import Few, known_file
from ssdtrt.clusters.batch import ClusterOptions, detect_on_cluster
from ssdtrt.clusters.records import BatchSettings
from ssdtrt.detect import Detector, detect_files
from ssdtrt.errors import ArtifactError, SsdtrtError
from ssdtrt.sinks.json_sinks import JsonLinesSink

pq = pytest.importorskip("pyarrow.parquet")
ray = pytest.importorskip("ray")

pytestmark = pytest.mark.slow
PICTURES, BROKEN, BLOCK = 300, 3, 10


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two nodes of four logical CPUs, and the second of them."""
    with ray_cluster(4, 4) as (cluster, (node,)):
        yield cluster.address, node, cluster


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network whose answers are known, and pictures of one color and many sizes, of which three are broken."""
    folder, random = tmp_path_factory.mktemp("batch"), np.random.default_rng(0)
    known_file(folder / "few.ts", network=Few)
    (folder / "in").mkdir()
    for n in range(PICTURES):
        path = folder / "in" / f"{n:04}.jpg"
        Image.new("RGB", (40 + n, 50), tuple(map(int, random.integers(0, 256, 3)))).save(path)
        if n % 100 == 37:
            path.write_bytes(path.read_bytes()[:200])
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    """What `detect` writes as JSON lines: {path: (width, height, detections)} of those that can be read, and the errors."""
    failures, paths = [], sorted((folder / "in").iterdir())
    detector = Detector(folder / "few.ts", "cpu")
    detect_files(detector, paths, [JsonLinesSink(folder / "expected.jsonl", detector.runner.labels)], failures)
    lines = lines_of((folder / "expected.jsonl").read_text())
    return {one["image"]: one for one in lines}, list(map(str, failures))


def detect(folder, address, output, each=None, actors=2, file=None, **settings):
    options = ClusterOptions(address=address, actors=actors, block_size=BLOCK, device="cpu")
    return detect_on_cluster(
        file or folder / "few.ts", [folder / "in"], output, options, BatchSettings(**settings), each=each
    )


def assert_rows(output, folder, expected):
    """Every picture has one row, which is what `detect` writes of it."""
    found, errors = expected
    rows = pq.read_table(output).to_pylist()
    assert [row["path"] for row in rows] == [str(folder / "in" / f"{n:04}.jpg") for n in range(PICTURES)]
    for row in rows:
        if row["error"] is not None:
            assert row["error"] in errors and row["size"] is None and row["boxes"] is None
            continue
        parts = zip(row["labels"], row["label_ids"], row["scores"], row["boxes"])
        detections = [
            {"label": label, "label_id": number, "score": round(score, 6), "box": [round(edge, 2) for edge in box]}
            for label, number, score, box in parts
        ]
        assert {"image": row["path"], **row["size"], "detections": detections} == found[row["path"]]
    assert sum(row["error"] is not None for row in rows) == len(errors) == BROKEN


def test_rows_are_those_of_detect_and_a_second_run_computes_nothing(cluster, folder, expected, tmp_path):
    seen = []
    report = detect(folder, cluster[0], tmp_path / "out", seen.append)
    assert_rows(tmp_path / "out", folder, expected)
    assert sorted(one.block for one in seen) == list(range(30))
    assert (report.pictures, report.errors, report.blocks, report.blocks_before) == (PICTURES, BROKEN, 30, 0)
    assert (report.actors, report.device, report.decoded_on, report.nodes) == (2, "cpu", "cpu", 2)
    assert report.detections == sum(len(one["detections"]) for one in expected[0].values())
    assert report.first_error == expected[1][0]
    (tmp_path / "out" / "part-00000004.parquet").unlink()
    again = detect(folder, cluster[0], tmp_path / "out", seen.append)
    assert [one.block for one in seen[30:]] == [4] and again.blocks_before == 29
    assert_rows(tmp_path / "out", folder, expected)
    last = detect(folder, "not asked", tmp_path / "out", seen.append)
    assert len(seen) == 31 and (last.actors, last.nodes, last.device, last.seconds) == (0, 0, None, 0)
    changed = {"actors", "nodes", "device", "decoded_on", "seconds", "images_per_second", "blocks_before"}
    first, second = ({k: v for k, v in one.as_dict().items() if k not in changed} for one in (report, last))
    assert first == second


def test_the_death_of_workers_loses_nothing(cluster, folder, expected, tmp_path):
    killed = []

    def kill(one):
        if len(killed) < 2:
            killed.append([])
            for name in ("BlockDetector", "prepare_blocks"):
                for number in workers(name)[:1]:
                    os.kill(number, signal.SIGKILL)
                    killed[-1].append(name)

    report = detect(folder, cluster[0], tmp_path / "out", kill)
    assert "BlockDetector" in killed[0]
    assert_rows(tmp_path / "out", folder, expected)
    assert (report.pictures, report.errors) == (PICTURES, BROKEN)


def test_a_driver_that_was_killed_goes_on_where_it_was(cluster, folder, expected, tmp_path):
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "ssdtrt",
        "detect",
        folder / "few.ts",
        folder / "in",
        "--ray",
        cluster[0],
        "-o",
        out,
    ]
    command += ["--block-size", BLOCK, "--actors", "1", "--device", "cpu", "-q"]
    driver = subprocess.Popen(list(map(str, command)), env=ENVIRONMENT)
    until = time.monotonic() + 120
    while not list(out.glob("part-*2.parquet")) and driver.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}
    assert 0 < len(before) < 30
    time.sleep(1)  # An actor may still write the block that it was at.
    report = detect(folder, cluster[0], out)
    assert len(before) <= report.blocks_before <= len(before) + 5
    assert_rows(out, folder, expected)
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before


def test_errors_end_the_run_in_one_line(cluster, folder, tmp_path, tensorrt_engine):
    with pytest.raises(ArtifactError, match="needs a GPU, and the cluster has none on 2 machines"):
        options = ClusterOptions(address=cluster[0])
        detect_on_cluster(tensorrt_engine, [folder / "in"], tmp_path / "gpu", options)
    with pytest.raises(
        SsdtrtError, match=r"^8 actors are asked for; the cluster has room for 7, one for each CPU but one"
    ):
        detect(folder, cluster[0], tmp_path / "many", actors=8)
    assert not (tmp_path / "gpu").exists() and not (tmp_path / "many").exists()

    def replace_folder(_):
        with contextlib.suppress(FileNotFoundError):
            (tmp_path / "out").rename(tmp_path / "moved")
            (tmp_path / "out").write_text("")

    with pytest.raises(ArtifactError) as error:
        detect(folder, cluster[0], tmp_path / "out", replace_folder)
    assert str(error.value) == f"{tmp_path}/out cannot be written: Not a directory. Give another with -o."


def test_the_removal_of_a_node_loses_nothing(cluster, folder, expected, tmp_path):
    address, node, whole = cluster
    removed = []

    def remove(_):
        if not removed:
            removed.append(len(workers("BlockDetector", node)))
            whole.remove_node(node, allow_graceful=False)

    report = detect(folder, address, tmp_path / "out", remove, actors=3)
    assert removed[0] > 0
    assert (report.pictures, report.errors, report.nodes) == (PICTURES, BROKEN, 2)
    assert_rows(tmp_path / "out", folder, expected)
