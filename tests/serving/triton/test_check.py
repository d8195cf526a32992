"""A check of a server that speaks Triton's protocol: right answers, wrong ones, another model, and none at all."""

import json
import socket
import sys
from pathlib import Path

import pytest
import torch
from serving_files import another, plan_file

from conftest import assert_same_detections
from ssdtrt.detect import Detector
from ssdtrt.errors import ArtifactError, ImageError, SsdtrtError
from ssdtrt.runners import torchscript
from ssdtrt.serving.triton.check import check_server
from ssdtrt.serving.triton.repository import write_repository
from ssdtrt.system.digests import sha256_file

pytest.importorskip("tritonclient.grpc")
from triton_server import serving, stalled


@pytest.fixture(scope="module")
def served(detector_file, engine, tmp_path_factory):
    """A server of a detector and of an engine: (servicer, address)."""
    models = tmp_path_factory.mktemp("models")
    write_repository([detector_file, engine], models)
    with serving(models) as (servicer, url):
        yield servicer, url


def test_a_server_that_answers_as_the_file_does(served, detector_file, engine, photographs, ssdtrt):
    servicer, url = served
    some = photographs[:2]
    servicer.requests.clear()
    sent = {detector_file: ((1, 3, 300, 300), "UINT8"), engine: ((1, 3, 300, 300), "FP32")}
    for file, request in sent.items():
        done = ssdtrt("triton-check", url, *some, "--engine", file, "--calls", 2, "--threshold", 0.2, "--json", "x")
        assert done.exit_code == 0, done.stderr
        found = json.loads(Path("x").read_text())
        assert (found["kind"], found["schema"], found["compared"], found["server"]) == (
            "triton-check",
            1,
            True,
            "2.99.0",
        )
        assert (found["version"], found["sha256"], found["notes"]) == ("1", sha256_file(file), [])
        expected = Detector(file, threshold=0.2)(some)
        assert [one["detections"] for one in found["pictures"]] == [len(one) for one in expected]
        assert sum(len(one) for one in expected) > 1
        for one in found["pictures"]:
            assert one["passed"] and one["detections"] == one["expected"] == one["matched"]
            assert one["relative_l2"] is None if file == detector_file else 0 <= one["relative_l2"] < 1e-4
        times = found["latency"]
        assert times["calls"] == 3
        assert 0 < times["p50_ms"] <= times["p90_ms"] <= times["p99_ms"] <= times["max_ms"]
        assert servicer.requests == [request] * 4
        servicer.requests.clear()
        lines = done.stdout.splitlines()
        assert lines[0] == f"{found['model']} version 1 on {url}, Triton 2.99.0"
        assert lines[1].split() == ["picture", "server", "file", "same", "rel.", "L2", "passed"]
        assert lines[-1].startswith("3 calls: p50 ")


def test_a_server_that_answers_otherwise(served, detector_file, engine, photographs, ssdtrt):
    servicer, url = served
    network = servicer.network("ssd300_engine")
    try:
        servicer.networks["ssd300_engine"] = lambda images: (network(images)[0], network(images)[1] * 1.01)
        done = ssdtrt("triton-check", url, photographs[0], "--engine", engine, "--calls", 1)
        assert done.exit_code == 1 and done.stdout.splitlines()[2].endswith("1.0e-02      no")
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
        assert line.startswith(f"Error: {photographs[0]}: the server found ") and line.endswith("relative L2 1.0e-02")
        # Where the file finds nothing, NaN would be no other number of detections.
        servicer.networks["ssd300_engine"] = lambda images: (network(images)[0], network(images)[1] * float("nan"))
        checked = check_server(url, photographs[:1], engine=engine, threshold=1, calls=1)
        assert (checked.pictures[0].detections, checked.pictures[0].expected, checked.pictures[0].passed) == (
            0,
            0,
            False,
        )
    finally:
        servicer.networks["ssd300_engine"] = network
    network = servicer.network("ssd300_detector")

    def one_less(images):
        boxes, labels, scores, counts = network(images)
        return boxes, labels, scores, counts - 1

    try:
        servicer.networks["ssd300_detector"] = one_less
        checked = check_server(url, photographs[:1], engine=detector_file, threshold=0, calls=1)
        (one,) = checked.pictures
        assert (one.detections, one.matched, one.passed) == (one.expected - 1, one.expected - 1, False)
        assert len(checked.failures) == 1
        servicer.networks["ssd300_detector"] = lambda images: (network(images)[0].flip(1), *network(images)[1:])
        assert not check_server(url, photographs[:1], engine=detector_file, threshold=0, calls=1).pictures[0].passed
    finally:
        servicer.networks["ssd300_detector"] = network


def test_without_a_file_only_the_answers_form_is_checked(served, detector_file, photographs):
    _, url = served
    checked = check_server(f"grpc://{url}", photographs[:1], model="ssd300_detector", calls=1)
    assert not checked.compared and checked.pictures[0].passed is None and checked.failures == ()
    assert checked.notes == ("no file was given with --engine, so nothing was compared but shapes",)
    with pytest.raises(SsdtrtError, match="has ssd300_detector, ssd300_engine ready; choose one with --model"):
        check_server(url, photographs[:1])


def refused(message, *arguments, kind=SsdtrtError, **options):
    with pytest.raises(kind, match=message) as caught:
        check_server(*arguments, calls=1, **options)
    assert len(str(caught.value).splitlines()) == 1


def test_a_server_with_another_model(served, detector_file, engine, module, photographs, tmp_path):
    _, url = served
    pictures = photographs[:1]
    refused(
        "is another model: its configuration has the SHA-256 ",
        url,
        pictures,
        engine=another(engine, tmp_path / "a.ts"),
        model="ssd300_engine",
    )
    refused("is another model", url, pictures, engine=engine, model="ssd300_detector")
    refused("has no model other that is ready; ready are: ssd300_detector, ssd300_engine", url, pictures, model="other")
    refused("of kind engine or detector", url, pictures, engine=module, kind=ArtifactError)
    refused("nothing.jpg", url, [tmp_path / "nothing.jpg"], engine=engine, kind=ImageError)


def test_a_configuration_of_somebody_else(engine, photographs, tmp_path):
    write_repository([engine], tmp_path / "models", name="m")
    path = tmp_path / "models" / "m" / "config.pbtxt"
    text = path.read_text()
    with serving(tmp_path / "models") as (servicer, url):
        path.write_text(text.replace("dims: [81, 8732]", "dims: [80, 8732]"))
        refused(
            r"has the outputs .*OUTPUT__1 FP32 \[-1, 80, 8732\]; expected .*81",
            url,
            photographs[:1],
            engine=engine,
            model="m",
        )
        path.write_text(text.replace("ssdtrt.", "other."))
        refused("m on .* is not from ssdtrt triton", url, photographs[:1])
        path.write_text(text.replace('"ssdtrt.labels"', '"labels"'))
        refused("parameter ssdtrt.labels is no list", url, photographs[:1])
        path.write_text(text)
        servicer.networks["m"] = lambda images: (torch.zeros(1, 4, 8732), torch.zeros(1, 81, 8732)[:, :, :5])
        refused("refused", url, photographs[:1])
        servicer.state = True, False
        refused("is live but not ready", url, photographs[:1])


def test_no_server_and_one_that_stalls(engine, photographs, tmp_path, ssdtrt):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{free.getsockname()[1]}"
        done = ssdtrt("triton-check", url, photographs[0], "-q")
        assert done.exit_code == 1 and done.stderr.startswith(f"Error: {url} cannot be reached (")
        assert len(done.stderr.splitlines()) == 1
        free.listen()  # It accepts connections and says nothing.
        refused("did not answer within 0.3 s|cannot be reached", url, photographs[:1], timeout=0.3)
    write_repository([engine], tmp_path / "models", name="m")
    with serving(tmp_path / "models") as (servicer, url):
        servicer.stall = stalled()
        refused("did not answer within 0.3 s. Give it more with --timeout", url, photographs[:1], timeout=0.3)
    for wrong in ("http://x:8000/v2", "host:", ":8001", "a:b"):
        refused("is no address of Triton's gRPC; expected HOST:PORT, such as localhost:8001", wrong, photographs[:1])


def test_a_plan_of_one_size_that_does_not_run_here(photographs, tmp_path, engine):
    plan = plan_file(tmp_path / "a.plan", "2")
    write_repository([plan], tmp_path / "models")
    network = torchscript.load(engine)
    with serving(tmp_path / "models") as (servicer, url):
        servicer.networks["a"] = lambda images: (torch.cat(network(images), dim=1),)
        checked = check_server(url, photographs[:1], engine=plan, threshold=0.2, calls=1)
        assert servicer.requests == [((2, 3, 300, 300), "FP32")]
    (note,) = checked.notes
    assert note.startswith("nothing was compared but the SHA-256 and shapes, as the file does not run here: ")
    expected = Detector(engine, threshold=0.2)(photographs[0])
    assert not checked.compared and checked.pictures[0].detections == len(expected)


def test_without_tritonclient(monkeypatch, photographs, ssdtrt):
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    done = ssdtrt("triton-check", "localhost", photographs[0], "-q")
    assert done.exit_code == 1 and "triton-check needs tritonclient" in done.stderr
    assert "pip install 'ssdtrt[triton]'" in done.stderr


def test_detections_are_those_of_detect(served, detector_file, photographs):
    from ssdtrt.detection.unpacking import Chosen
    from ssdtrt.reading.reader import PictureReader
    from ssdtrt.serving.triton import check
    from ssdtrt.serving.triton.client import TritonServer

    _, url = served
    with TritonServer(url) as server:
        remote = check._Model(server, "ssd300_detector", *server.describe("ssd300_detector"))
        (picture,) = PictureReader("eval", True, 1, 1).with_threads(photographs[:1])
        images = torch.from_numpy(picture.pixels.transpose(2, 0, 1)[None].copy())
        packed = check._packed(remote, remote(images))
    found = check._detections(packed, picture, Chosen(0.2, None, 200), remote)
    expected = Detector(detector_file, threshold=0.06)(photographs[0]).detections
    assert len(expected) > 3
    assert_same_detections([one for one in found.detections if one.score >= 0.06], expected)
