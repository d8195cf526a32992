"""From files to detections with JPEGs decoded on a device: what the CPU road gives, by threads and processes, in turn and ahead."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from coco_files import write_annotations
from command_line import INTERRUPTED, assert_refused, lines_of
from jpeg_files import jpeg, picture, write_all

import forks
from known import known_file
from ssdtrt.detect import Detector, detect_files
from ssdtrt.errors import SsdtrtError
from ssdtrt.evaluate import Evaluation, evaluate_file
from ssdtrt.runners import runner
from ssdtrt.system.child import child_environment

POSIX = pytest.mark.skipif(os.name != "posix", reason="files are handed to processes as on POSIX")
WITHOUT_GPU = (
    "JPEGs cannot be decoded on the GPU: there is no GPU here that torch sees, or --device is cpu. "
    "Leave --decode (decode) out, and the CPU does it."
)


@pytest.fixture
def run(known, monkeypatch):
    """Detects in paths, of which many are done by processes: (pixels, [(place, detections)], errors) and the detector."""

    def detect(paths, decode, many=False, overlaps=False, size=4, network=True, pause=0, **options):
        detector, seen, failures = Detector(known, "cpu", decode=decode, workers=2, **options), [], []
        detector.batch_size, detector._overlaps = size, overlaps
        start = (
            detector.start if network else lambda images: lambda: time.sleep(pause) or torch.zeros(len(images), 201, 6)
        )
        monkeypatch.setattr(detector.batches, "start", lambda images: seen.append(images.clone()) or start(images))
        found = [
            (place, one.named(detector.runner.labels)) for place, one in detector.stream(paths, failures, many=many)
        ]
        return (torch.cat(seen), found, list(map(str, failures))), detector

    return detect


def assert_same(found, expected):
    assert torch.equal(found[0], expected[0])  # The very pixels.
    assert found[1:] == expected[1:]


@POSIX
def test_every_way_gives_what_the_cpu_gives(gpu_decoding, run, tmp_path):
    paths, broken = write_all(tmp_path)
    expected, _ = run(paths, "cpu")
    assert len(expected[1]) == len(paths) - broken and len(expected[2]) == broken
    assert not gpu_decoding.asked
    found, detector = run(paths, "gpu", many=True, overlaps=True)
    assert_same(found, expected)
    assert all(one.seconds > 0 for one in detector.times.of(1.0)[:4])
    for many, overlaps, decode in ((True, False, "gpu"), (False, True, "gpu"), (False, True, "cpu")):
        assert torch.equal(run(paths, decode, many, overlaps, network=False)[0][0], expected[0])
    assert sum(gpu_decoding.asked) == 3 * (35 + 1)  # Each is tried once.


@POSIX
def test_what_the_orientation_and_the_limit_of_pixels_are_holds_on_the_gpu(gpu_decoding, run, tmp_path):
    paths = write_all(tmp_path)[0][:30]
    settings = {"orient": False, "max_pixels": 100_000}
    expected, _ = run(paths, "cpu", **settings)
    assert "has more than 100,000 pixels" in "".join(expected[2])
    assert_same(run(paths, "gpu", True, True, **settings)[0], expected)


@POSIX
def test_slots_suffice_whatever_is_between_the_jpegs(gpu_decoding, run, tmp_path):
    """Pictures that hold their slots to the end, with failures that put batches and groups out of step."""
    paths = []
    for number in range(60):
        paths.append(tmp_path / f"{number}")
        kind = "JPEG" if number % 29 == 0 else "PNG"
        picture((20, 10), number).save(paths[-1], kind)
        if number in (1, 9, 26):
            paths[-1].write_bytes(b"text")
    expected, _ = run(paths, "cpu", size=5, network=False)
    for overlaps in (False, True):
        assert_same(run(paths, "gpu", True, overlaps, size=5, network=False, pause=0.04)[0], expected)


def test_a_batch_that_does_not_fit_is_halved_ahead_too(gpu_decoding, known, tmp_path):
    paths = [tmp_path / f"{number}.jpg" for number in range(17)]
    for number, path in enumerate(paths):
        path.write_bytes(jpeg((40 + number, 30), seed=number))
    expected = Detector(known, "cpu")(paths)
    notes = []
    detector = Detector(known, "cpu", decode="gpu", note=notes.append)
    detector.batch_size, detector._overlaps, module = 8, True, detector.runner.module

    def narrow(images):
        if len(images) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return module(images)

    detector.runner.module = narrow
    assert detector(paths) == expected and detector.batch_size == 2 and len(notes) == 2


def test_it_is_noted_once_where_the_gpu_decodes_none(gpu_decoding, known, tmp_path):
    paths = [tmp_path / f"{number}.jpg" for number in range(5)]
    for path in paths:
        path.write_bytes(jpeg())
    notes = []
    detector = Detector(known, "cpu", decode="gpu", note=notes.append)
    gpu_decoding.refused.append(jpeg())
    assert len(detector(paths)) == 5
    assert notes == [f"{paths[0]}: the GPU could not decode it, so the CPU did, which is slower."]


def test_a_picture_of_a_result_is_the_turned_one(gpu_decoding, known, tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg((80, 60), orientation=6))
    detector = Detector(known, "cpu", decode="gpu")
    found, arrays = detector(tmp_path / "a.jpg"), detector([np.zeros((9, 8, 3), np.uint8)])
    assert found.picture.size == (60, 80) == (found.width, found.height) and arrays[0].width == 8
    ((_, kept),) = detector.stream([tmp_path / "a.jpg"], keep=True)
    assert kept.picture.size == (60, 80)


@POSIX
def test_by_itself_the_gpu_decodes_many_files_alone(gpu_decoding, known, tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    paths = [tmp_path / "a.jpg"] * 3
    detector = Detector(known, "cpu")
    assert len(detector(paths)) == len(list(detector.stream(paths, many=True, keep=True))) == 3
    assert not gpu_decoding.asked
    assert len(list(detector.stream(paths, many=True))) == 3 and sum(gpu_decoding.asked) == 4
    assert len(detector(paths)) == 3 and sum(gpu_decoding.asked) == 4  # Few again.
    assert (
        len(list(Detector(known, "cpu", decode="cpu").stream(paths, many=True))) == 3 and sum(gpu_decoding.asked) == 4
    )


def test_a_gpu_that_is_asked_for_and_not_there_is_one_line(known, ssdtrt, tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    write_annotations(tmp_path / "a.json", {1: "a.jpg"}, [(1, 17, [1, 1, 20, 20])])
    for arguments in (
        ("detect", known, "a.jpg", "--jsonl", "d.jsonl"),
        ("evaluate", known, "--images", ".", "--annotations", "a.json"),
        ("bench", known, "--images", ".", "--annotations", "a.json"),
    ):
        assert_refused(ssdtrt("-q", *arguments, "--decode", "gpu", "--device", "cpu"), WITHOUT_GPU)
    assert not (tmp_path / "d.jsonl").exists()
    done = ssdtrt("detect", known, "a.jpg", "--decode", "tpu")
    assert done.exit_code == 2 and "'tpu' is not one of 'auto', 'gpu', 'cpu'" in done.stderr
    with pytest.raises(SsdtrtError, match="^decode is 'tpu'; expected auto, gpu, cpu.$"):
        Detector(known, "cpu", decode="tpu")


def test_a_file_for_the_crop_of_the_hub_is_refused(gpu_decoding, tmp_path):
    hub = known_file(tmp_path / "hub.ts", preprocess="hub")
    with pytest.raises(
        SsdtrtError, match="^JPEGs cannot be decoded on the GPU: the file was exported with --preprocess hub"
    ):
        Detector(hub, "cpu", decode="gpu")
    Detector(hub, "cpu")


def test_an_evaluation_is_the_same(gpu_decoding, known, tmp_path):
    names = {}
    for number in range(1, 6):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg((60, 40), seed=number, orientation=number + 2))
        names[number] = f"{number}.jpg"
    write_annotations(tmp_path / "a.json", names, [(number, 17, [2.0, 1.0, 56.0, 37.0]) for number in names])
    reports = [evaluate_file(known, tmp_path, tmp_path / "a.json", device="cpu", decode=way) for way in ("cpu", "gpu")]
    assert sum(gpu_decoding.asked) == 6
    assert [report.settings.decode for report in reports] == ["cpu", "gpu"]
    assert reports[0].figures == reports[1].figures and reports[0].detections == reports[1].detections == 15
    Evaluation(tmp_path, tmp_path / "a.json", decode="gpu").check_decoding((torch.device("cpu"), "eval"))


def test_queues_are_asked_for_before_the_engine_is_loaded(known, ssdtrt, tmp_path, monkeypatch):
    """After it CUDA runs, and has the queues that it has."""
    name, pick_device, seen = "CUDA_DEVICE_MAX_CONNECTIONS", runner.pick_device, []
    monkeypatch.setattr(runner, "pick_device", lambda device: seen.append(os.environ.get(name)) or pick_device(device))
    (tmp_path / "1.jpg").write_bytes(jpeg())
    write_annotations(tmp_path / "a.json", {1: "1.jpg"}, [(1, 17, [2.0, 1.0, 56.0, 37.0])])
    ways = (
        lambda: ssdtrt("detect", known, "1.jpg", "--jsonl", "d.jsonl"),
        lambda: evaluate_file(known, tmp_path, tmp_path / "a.json", device="cpu"),
        lambda: Detector(known, "cpu"),
    )
    for number, way in enumerate(ways, 1):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
        way()
        assert seen == ["32"] * number


@POSIX
def test_timing_is_shown_and_written(gpu_decoding, known, ssdtrt, tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    arguments = ("detect", known, "-", "--jsonl", "d.jsonl", "--decode", "gpu", "--timing", "--device", "cpu")
    done = ssdtrt(*arguments, "--json", "run.json", input="a.jpg\n" * 40)
    assert done.exit_code == 0 and len(lines_of((tmp_path / "d.jsonl").read_text())) == 40
    assert sum(gpu_decoding.asked) == 41
    stages = json.loads((tmp_path / "run.json").read_text())["stages"]
    assert [one["stage"] for one in stages] == ["read", "decode", "upload", "network", "results", "write"]
    assert all(one["seconds"] > 0 and 0 < one["share"] <= 1.05 for one in stages)
    shown = done.stdout.split("\n\n")[1].splitlines()
    assert shown[0].split() == ["stage", "busy", "s", "of", "the", "time"] and len(shown) == 8
    assert [line.split()[0] for line in shown[1:7]] == ["read", "decode", "upload", "network", "results", "write"]
    assert "stage" not in ssdtrt("detect", known, "a.jpg", "--jsonl", "e.jsonl", "--device", "cpu").stdout


def test_each_run_has_its_own_times(known, tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    detector = Detector(known, "cpu")
    first, second = (detect_files(detector, [tmp_path / "a.jpg"] * count, []) for count in (12, 1))
    assert second.stages[3].seconds < first.stages[3].seconds / 4
    assert all(0 <= one.share <= 1.05 for summary in (first, second) for one in summary.stages)


def overlapping(monkeypatch):
    """Every detector stages ahead, as on a GPU; inherited by what is forked."""
    init = Detector.__init__

    def begin(self, *given, **named):
        init(self, *given, **named)
        self._overlaps = True

    monkeypatch.setattr(Detector, "__init__", begin)


@POSIX
@pytest.mark.parametrize("how", ["interrupt", "failure"])
def test_a_run_ends_at_once_while_its_list_is_still_open(known, tmp_path, monkeypatch, how):
    """The thread that reads the list waits on stdin: after Ctrl-C, and where the results cannot be written any more."""
    overlapping(monkeypatch)
    (tmp_path / "a.jpg").write_bytes(jpeg())
    os.mkfifo(tmp_path / "list")
    target = "d.jsonl" if how == "interrupt" else "/dev/full"
    arguments = ["-q", "detect", known, "-", "--jsonl", target, "--device", "cpu", "--workers", "2"]
    process = forks.begin(tmp_path, arguments, stdin=tmp_path / "list")
    with open(tmp_path / "list", "wb", buffering=0) as listed:
        listed.write(b"a.jpg\n" * 40)
        lines, end, began = tmp_path / "d.jsonl", time.monotonic() + 60, 0.0
        while how == "interrupt" and not (lines.exists() and lines.read_text().count("\n") >= 30):
            assert time.monotonic() < end, (tmp_path / "stderr").read_text()
            time.sleep(0.05)
        if how == "interrupt":  # All is read, and it waits for more.
            began = time.monotonic()
            os.kill(process, signal.SIGINT)
        code = forks.end(process)
        took = time.monotonic() - began
    said = (tmp_path / "stderr").read_text()
    if how == "interrupt":
        assert (code, said.strip()) == (130, INTERRUPTED) and took < 3
        assert len(lines_of(lines.read_text())) >= 30
    else:
        assert (code, said) == (1, "Error: /dev/full: No space left on device\n")


@POSIX
@pytest.mark.slow
def test_a_program_of_ones_own_ends_while_its_list_is_still_open(known, tmp_path):
    """With a thread left on stdin, Python would abort where it waits for a buffer."""
    (tmp_path / "a.jpg").write_bytes(jpeg())
    program = (
        "import sys\n"
        "from ssdtrt.detect import Detector\n"
        "from ssdtrt.reading.sources import expand\n"
        "detector = Detector(sys.argv[1], 'cpu')\n"
        "detector._overlaps = True\n"
        "for place, _ in detector.stream(expand(['-'])):\n"
        "    print(place, flush=True)\n"
    )
    command = [sys.executable, "-c", program, str(known)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes, env=child_environment(), cwd=tmp_path) as process:
        process.stdin.write(b"a.jpg\n" * 30)
        process.stdin.flush()
        while process.stdout.readline() != b"15\n":
            pass
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        code, said = process.wait(30), process.stderr.read().decode()
    assert code == -signal.SIGINT and said.rstrip().endswith("KeyboardInterrupt")
    assert "Fatal" not in said and "Exception ignored" not in said
