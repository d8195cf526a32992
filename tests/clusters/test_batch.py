"""Runs on a cluster of Ray with two nodes: the rows of `detect`, each once, whatever dies on the way."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from command_line import ENVIRONMENT, lines_of
from PIL import Image
from ray_clusters import ray_cluster, workers

from conftest import ROOT
from known import Few, known_file
from ssdtrt.clusters import batch, nodes
from ssdtrt.clusters.batch import ClusterOptions, detect_on_cluster
from ssdtrt.clusters.blocks import name_of
from ssdtrt.clusters.nodes import NodeAnswer, NodeQuestion
from ssdtrt.clusters.records import BatchSettings
from ssdtrt.clusters.session import connected
from ssdtrt.detect import Detector, detect_files
from ssdtrt.errors import ArtifactError, SsdtrtError
from ssdtrt.sinks.json_sinks import JsonLinesSink

pq = pytest.importorskip("pyarrow.parquet")

# Ray is imported where it is used first: it reads variables that keep it quiet.
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not find_spec("ray"), reason="needs the extra ray")]
PICTURES, BROKEN, BLOCK = 160, 3, 8
BLOCKS = 20


@pytest.fixture(autouse=True)
def no_test_waits_for_ever():
    """Ray waits for what has died in silence where it does not notice it."""

    def fail(*_):
        raise TimeoutError("This test has run for five minutes.")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two nodes of three logical CPUs, which this process is connected to, and the second of them."""
    with ray_cluster(3, 3) as (cluster, (node,)), connected(cluster.address):
        yield cluster, node


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network whose answers are known, and pictures of one color and many sizes, of which three are broken."""
    folder, random = tmp_path_factory.mktemp("batch"), np.random.default_rng(0)
    known_file(folder / "few.ts", network=Few)
    (folder / "in").mkdir()
    for n in range(PICTURES):
        path = folder / "in" / f"{n:04}.jpg"
        Image.new("RGB", (40 + n, 50), tuple(map(int, random.integers(0, 256, 3)))).save(path)
        if n % 60 == 17:
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


def detect(folder, output, each=None, actors=1, file=None, pictures=None):
    options = ClusterOptions(address="connected", actors=actors, block_size=BLOCK, device="cpu")
    return detect_on_cluster(
        file or folder / "few.ts", pictures or [folder / "in"], output, options, BatchSettings(), each=each
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


def test_the_process_that_answers_for_a_machine_ends(cluster, monkeypatch):
    """Else it would keep what it has on the GPU."""
    import ray

    def number(_):
        return NodeAnswer(f"process {os.getpid()}")

    monkeypatch.setattr(nodes, "answer", number)
    question = NodeQuestion(file="a", sha256="0" * 64, device="cpu", folder="b", token="c", decode="auto")
    with pytest.raises(ArtifactError) as error:
        nodes.check_nodes(ray, nodes.list_nodes(ray), question)
    process = Path("/proc", str(error.value).split()[-1])
    while process.exists():
        time.sleep(0.05)


def test_a_run_goes_on_after_the_death_of_its_driver_and_of_workers(cluster, folder, expected, tmp_path, capfd):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "ssdtrt", "detect", folder / "few.ts", folder / "in", "--ray", cluster[0].address]
    command += ["-o", out, "--block-size", BLOCK, "--actors", "1", "--device", "cpu", "-q"]
    environment = ENVIRONMENT | {"RAY_AUTH_MODE": os.environ["RAY_AUTH_MODE"]}
    with open(tmp_path / "shown", "wb") as shown:
        driver = subprocess.Popen(list(map(str, command)), env=environment, stdout=shown, stderr=shown)
    until = time.monotonic() + 300
    while not list(out.glob("part-*2.parquet")) and driver.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    assert (tmp_path / "shown").read_text() == ""  # Ray's talk is not shown.
    before = times_of(out)
    assert 0 < len(before) < BLOCKS
    while before != (before := times_of(out)):
        time.sleep(2)  # An actor may still write the block that it was at.
    killed, seen = [], []

    def kill(one):
        seen.append(one.block)
        if len(seen) == 2:
            for name in ("BlockDetector", "prepare_blocks"):
                for number in workers(name):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(number, signal.SIGKILL)
                        killed.append(name)

    report = detect(folder, out, kill)
    assert "BlockDetector" in killed
    if sys.modules["ray"]._private.ray_constants.RAY_DEDUP_LOGS_SKIP_REGEX:  # Not imported by another test before.
        assert capfd.readouterr() == ("", "")
    assert_rows(out, folder, expected)
    assert sorted(seen) == [block for block in range(BLOCKS) if name_of(block) not in before]
    assert before.items() <= times_of(out).items()  # They were not written again.
    assert (report.pictures, report.errors, report.first_error) == (PICTURES, BROKEN, expected[1][0])
    assert (report.blocks, report.blocks_before) == (BLOCKS, len(before))
    assert (report.actors, report.device, report.decoded_on, report.nodes) == (1, "cpu", "cpu", 2)
    assert report.detections == sum(len(one["detections"]) for one in expected[0].values())


def test_a_run_that_is_done_starts_nothing(cluster, folder, expected, tmp_path):
    """From and to addresses of fsspec, with a last block that is shorter."""
    pictures, out, seen = [f"file://{folder}/in/00{tens}?.jpg" for tens in (0, 1)], f"file://{tmp_path}/out", []
    report = detect(folder, out, seen.append, pictures=pictures)
    assert sorted((one.block, one.pictures) for one in seen) == [(0, 8), (1, 8), (2, 4)]
    again = detect(folder, out, seen.append, pictures=pictures)
    assert len(seen) == 3 and (again.actors, again.nodes, again.device, again.seconds) == (0, 0, None, 0)
    changed = {"actors", "nodes", "device", "decoded_on", "seconds", "images_per_second", "blocks_before"}
    first, second = ({k: v for k, v in one.as_dict().items() if k not in changed} for one in (report, again))
    rows = pq.read_table(tmp_path / "out").to_pylist()
    assert [row["path"] for row in rows] == [f"file://{folder}/in/{n:04}.jpg" for n in range(20)]
    assert [row["error"] is None for row in rows] == [n != 17 for n in range(20)]
    assert all(row["labels"] == [one["label"] for one in expected[0][row["path"][7:]]["detections"]]
               for row in rows if row["error"] is None)  # fmt: skip
    assert first == second and (report.blocks_before, again.blocks_before) == (0, 3)


def test_errors_end_the_run_in_one_line(cluster, folder, tmp_path, tensorrt_engine):
    with pytest.raises(ArtifactError, match="needs a GPU, and the cluster has none on 2 machines"):
        detect_on_cluster(tensorrt_engine, [folder / "in"], tmp_path / "gpu", ClusterOptions(address="connected"))
    with pytest.raises(
        SsdtrtError, match=r"^6 actors are asked for; the cluster has room for 5, one for each CPU but one"
    ):
        detect(folder, tmp_path / "many", actors=6)
    assert not (tmp_path / "gpu").exists() and not (tmp_path / "many").exists()

    def replace_folder(_):
        if not (tmp_path / "moved").exists():
            (tmp_path / "out").rename(tmp_path / "moved")
            (tmp_path / "out").write_text("")

    with pytest.raises(ArtifactError) as error:
        detect(folder, tmp_path / "out", replace_folder)
    assert str(error.value) == f"{tmp_path}/out cannot be written: Not a directory. Give another with -o."


def test_the_examples_of_the_documentation_run(cluster, tmp_path, ssdtrt, capsys, monkeypatch):
    monkeypatch.setattr(batch, "available_cores", lambda: 2)
    text = (ROOT / "docs" / "ray.md").read_text(encoding="utf-8")
    marked = text.split("<!-- executed by tests/clusters/test_batch.py -->\n")[1:]
    command, program = (part.split("```")[1].partition("\n")[2] for part in marked)
    known_file(tmp_path / "ssd300.engine.ts", network=Few)
    (tmp_path / "pictures").mkdir()
    for n in range(20):
        Image.new("RGB", (60, 40), (200, 10, 10)).save(tmp_path / "pictures" / f"{n:02}.png")
    done = ssdtrt(*shlex.split(command)[1:], "--json", "report.json")
    assert (done.exit_code, [line for line in done.stderr.splitlines() if "image" not in line]) == (0, [
        "listing", "starting Ray", "asking the machines",
        "plan: 20 pictures in 3 blocks; 1 actor on CPUs, 2 machines; JPEGs are decoded on CPUs",
    ])  # fmt: skip
    shown = text.split("<!-- output -->\n```\n")[1].split("```")[0].replace("1 machine", "2 machines")
    assert re.sub(r"\d+\.\d", "0.0", shown) == re.sub(r"\d+\.\d", "0.0", done.stdout)
    exec(compile(program, "program", "exec"), {})
    assert capsys.readouterr().out == "20 20 ['cat']\n"
    assert json.loads((tmp_path / "report.json").read_text())["kind"] == "detect-batch"


def test_the_removal_of_a_node_loses_nothing(cluster, folder, expected, tmp_path):
    whole, node = cluster
    removed = []

    def remove(_):
        if not removed:
            removed.extend(workers("BlockDetector", node) or workers("prepare_blocks", node))
            whole.remove_node(node, allow_graceful=False)

    report = detect(folder, tmp_path / "out", remove, actors=2)
    assert removed
    assert (report.pictures, report.errors, report.nodes) == (PICTURES, BROKEN, 2)
    assert_rows(tmp_path / "out", folder, expected)


def times_of(folder):
    """When each block was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")}
