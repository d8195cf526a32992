"""The commands on pictures: where the detections go, which pictures are meant, and how a run ends."""

import os
import shutil
import signal
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch
from coco_files import write_annotations
from command_line import INTERRUPTED, assert_refused, lines_of, pictures_in, strict
from picture_files import png, visible
from PIL import Image

import forks
from known import BLUE, RED, Twins, known_file
from ssdtrt import config
from ssdtrt.bench import bench_files
from ssdtrt.commands.text.tables import detections_text, summary_text
from ssdtrt.detect import Detector
from ssdtrt.detection.results import Detection, ImageDetections, Summary
from ssdtrt.images.tensors import synthetic_images
from ssdtrt.runners import torchscript
from ssdtrt.runners.runner import FileRunner, load_engine
from ssdtrt.verify import verify_engine

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


@pytest.fixture
def two(pictures):
    """A red and a blue picture, named as COCO's are."""
    return [pictures("000139.png"), pictures("7.png", BLUE, (60, 40))]


def test_json_lines_on_stdout_are_alone_there(known, two, ssdtrt, tmp_path):
    done = ssdtrt("detect", known, *two, "--jsonl", "-", "--device", "cpu")
    assert done.exit_code == 0
    entries = lines_of(done.stdout)
    assert entries == [found.as_dict() for found in Detector(known, "cpu")(two)]
    assert "6 objects in 2 pictures" in done.stderr and "written to" not in done.stderr
    assert os.listdir(tmp_path) == ["pictures"]


def test_coco_results_on_stdout_are_alone_there(known, two, ssdtrt):
    done = ssdtrt("detect", known, *two, "--coco", "-", "--jsonl", "d.jsonl", "--device", "cpu")
    rows = strict(done.stdout)
    assert [(row["image_id"], row["category_id"]) for row in rows] == [
        (139, 17), (139, 18), (139, 1), (7, 3), (7, 18), (7, 1)
    ]  # fmt: skip
    assert done.stderr.splitlines()[-1] == "written to d.jsonl"


def test_quiet_with_json_on_stdout_says_no_progress(known, two, ssdtrt):
    done = ssdtrt("-q", "detect", known, two[0], "--jsonl", "-", "--device", "cpu")
    assert "detecting" not in done.stderr and "loading" not in done.stderr and len(done.stdout.splitlines()) == 1


def test_all_outputs_at_once(known, two, ssdtrt, tmp_path):
    outputs = ["-o", "out", "--jsonl", "d.jsonl", "--coco", "r.json", "--json", "run.json"]
    done = ssdtrt("detect", known, *two, *outputs, "--device", "cpu")
    assert done.exit_code == 0
    assert sorted(os.listdir(tmp_path)) == ["d.jsonl", "out", "pictures", "r.json", "run.json"]
    assert visible("out") == ["000139.jpg", "7.jpg", "detections.json"]
    assert done.stdout.splitlines()[-3:] == [
        "written to out: 2 pictures and detections.json", "written to d.jsonl", "written to r.json"
    ]  # fmt: skip
    lines = lines_of((tmp_path / "d.jsonl").read_text())
    entries = pictures_in(tmp_path / "out")
    assert [entry.pop("drawing") for entry in entries] == ["000139.jpg", "7.jpg"] and entries == lines
    report = strict((tmp_path / "run.json").read_text())
    assert report.pop("images_per_second") == pytest.approx(2 / report.pop("seconds"))
    stages = report.pop("stages")
    assert [list(one) for one in stages] == [["stage", "seconds", "share"]] * 6
    assert report.pop("machine")["cpu"] and report == {
        "schema": 1, "kind": "detect", "file": str(known), "precision": "fp32", "pictures": 2, "detections": 6,
        "folder": "out", "jsonl": "d.jsonl", "coco": "r.json", "failures": [],
    }  # fmt: skip


def test_the_report_of_a_run_with_a_failure_is_alone_on_stdout(known, two, ssdtrt):
    done = ssdtrt("detect", known, two[0], "none.jpg", "--jsonl", "d.jsonl", "--json", "-", "--device", "cpu", "-q")
    report = strict(done.stdout)
    assert (report["pictures"], report["detections"], report["folder"], report["jsonl"]) == (1, 3, None, "d.jsonl")
    assert done.exit_code == 1 and done.stderr == f"Error: {report['failures'][0]}\n"
    done = ssdtrt("detect", known, two[0], "--jsonl", "-", "--json", "-")
    assert done.exit_code == 2 and "Only one of --jsonl and --json can go to stdout." in done.stderr


def test_a_pipe_among_the_pictures_is_named_and_the_others_go_on(known, two, ssdtrt, tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    done = ssdtrt("-q", "detect", known, two[0], "pipe.jpg", two[1], "--jsonl", "-", "--device", "cpu")
    assert done.exit_code == 1 and len(done.stdout.splitlines()) == 2
    assert "Error: pipe.jpg is a device or a pipe; expected a picture.\n" in done.stderr


def test_names_with_line_ends_and_escapes_are_a_line_each(known, pictures, ssdtrt):
    names = ["new\nline.jpg", "esc\x1b[31m.jpg"]
    paths = [pictures(name) for name in names]
    broken = paths[0].with_name("no\n\x1b[31mpicture.jpg")
    broken.touch()
    done = ssdtrt("-q", "detect", known, *paths, broken, "-o", "out\x1b[31m", "--device", "cpu")
    lines = done.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines[:3]] == [
        "picture",
        f"{paths[0].parent}/new\\nline.jpg",
        f"{paths[0].parent}/esc\\x1b[31m.jpg",
    ]
    assert lines[4:] == ["written to out\\x1b[31m: 2 pictures and detections.json"]
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"Error: {paths[0].parent}/no\\n\\x1b[31mpicture.jpg cannot be read as a picture")
    assert ssdtrt("inspect", broken).stderr.startswith(f"Error: {paths[0].parent}/no\\n\\x1b[31mpicture.jpg is ")


def test_results_are_not_lost_to_a_name_mistyped(known, two, ssdtrt, tmp_path):
    assert ssdtrt("detect", known, *two, "-o", "out", "--jsonl", "d.jsonl", "--device", "cpu").exit_code == 0
    before = [(tmp_path / name).read_bytes() for name in ("out/detections.json", "d.jsonl")]
    done = ssdtrt("-q", "detect", known, "typo.jpg", "-o", "out", "--jsonl", "d.jsonl", "--device", "cpu")
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", "Error: typo.jpg: no such file.\n")
    assert [(tmp_path / name).read_bytes() for name in ("out/detections.json", "d.jsonl")] == before


def test_a_report_takes_no_place_of_a_picture_or_a_file_of_ours(known, two, ssdtrt, tmp_path):
    shutil.copyfile(known, tmp_path / "k.ts")
    shutil.copyfile(two[1], tmp_path / "other.png")
    before = {name: (tmp_path / name).read_bytes() for name in ("k.ts", "other.png")}
    for name in before:
        for arguments in (
            ["detect", known, two[0], "--device", "cpu", "--jsonl", name],
            ["inspect", known, "--json", name],
        ):
            done = ssdtrt(*arguments)
            assert done.exit_code == 2
            assert done.stderr.endswith(
                f"Error: {name} exists and is not a text file; give another path for the report.\n"
            )
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("option", ["--jsonl", "--coco"])
def test_an_output_that_cannot_be_written_is_refused_before_any_work(known, two, ssdtrt, option):
    done = ssdtrt("-q", "detect", known, *two, option, "nowhere/a.json", "--device", "cpu")
    assert (done.exit_code, done.stdout) == (1, "")
    message = "nowhere/a.json cannot be written: there is no directory nowhere. Give another path."
    assert done.stderr == f"Error: {message}\n"


def refused_coco(done, folder, start):
    """The command ended with 1 and one line that starts so, before it wrote anything."""
    assert (done.exit_code, done.stdout) == (1, "") and isinstance(done.exception, SystemExit)
    assert done.stderr.startswith(f"Error: {start}") and len(done.stderr.splitlines()) == 1
    assert not {"r.json", "out", "d.jsonl"} & set(os.listdir(folder))


def ran(monkeypatch):
    """The list of the calls of the network, one of which is that of loading."""
    calls = []
    real = FileRunner.__call__
    monkeypatch.setattr(FileRunner, "__call__", lambda runner, images: calls.append(1) or real(runner, images))
    return calls


@pytest.mark.parametrize(
    "names, message",
    [
        (
            ["1.png", "street.png"],
            "pictures/street.png has no number as name, such as 000139.jpg, to be the id: give --",
        ),
        (
            ["a/0001.png", "b/1.png"],
            "pictures/a/0001.png and pictures/b/1.png both have the id 1. Leave one out, or gi",
        ),
        (["1.png", "1.png"], "given more than once: pictures/1.png. Give each picture once."),
    ],
)
def test_coco_ids_in_doubt_end_before_the_first_picture(names, message, known, pictures, ssdtrt, monkeypatch, tmp_path):
    for name in names:
        pictures(name)
    calls = ran(monkeypatch)
    arguments = [known, *(f"pictures/{name}" for name in names), "--device", "cpu"]
    done = ssdtrt("-q", "detect", *arguments, "--coco", "r.json", "--jsonl", "d.jsonl", "-o", "out")
    refused_coco(done, tmp_path, f"No COCO results: {message}")
    assert len(calls) == 1


def test_labels_that_are_not_cocos_end_before_the_first_picture(two, ssdtrt, tmp_path):
    odd = known_file(tmp_path / "odd.ts", labels=("background", "pothole", *config.COCO_LABELS[2:]))
    done = ssdtrt("-q", "detect", odd, *two, "--coco", "r.json", "--device", "cpu")
    refused_coco(done, tmp_path, "No COCO results: pothole among the model's 80 classes: not COCO's, so the category")


def test_annotations_have_the_ids_of_pictures_and_classes(pictures, ssdtrt, tmp_path):
    """Pictures with one name in two folders, and a model with one class of its own."""
    odd = known_file(tmp_path / "odd.ts", labels=("background", "pothole", *config.COCO_LABELS[2:]))
    pictures("a/street.png")
    pictures("b/street.png", BLUE, (60, 40))
    names = {"left": "a\\street.png", "right": "b/street.png"}
    write_annotations(tmp_path / "a.json", names, [], {"c": "cat", "p": "pothole"})
    done = ssdtrt("-q", "detect", odd, "pictures", "--coco", "r.json", "--annotations", "a.json", "--device", "cpu")
    assert done.exit_code == 0, done.stderr
    rows = strict((tmp_path / "r.json").read_text())
    assert [(row["image_id"], row["category_id"]) for row in rows] == [("left", "c"), ("left", "p"), ("right", "p")]
    assert done.stderr == "note: no category here for 78 of 80 classes, whose detections are left out\n"
    pictures("c.png")
    (tmp_path / "r.json").unlink()
    done = ssdtrt("-q", "detect", odd, "pictures", "--coco", "r.json", "--annotations", "a.json", "--device", "cpu")
    assert done.exit_code == 1 and not (tmp_path / "r.json").exists()
    assert done.stderr.startswith("Error: No COCO results: pictures/c.png has no id in a.json, which lists a\\street.")


def test_annotations_without_coco_and_in_its_place(known, two, ssdtrt, tmp_path):
    write_annotations(tmp_path / "a.json", {1: "7.png"}, [])
    done = ssdtrt("detect", known, two[1], "--annotations", "a.json")
    assert done.exit_code == 2 and "--annotations has the ids for COCO's results: give --coco too." in done.stderr
    done = ssdtrt("-q", "detect", "none.ts", two[1], "--annotations", "none.json", "--coco", "r.json")
    refused_coco(
        done, tmp_path, "none.json: no such file. Give an annotation file in COCO's format."
    )  # Before loading.
    done = ssdtrt("detect", known, two[1], "--annotations", "a.json", "--coco", "a.json")
    assert done.exit_code == 2 and "a.json is an input; give another path for --coco." in done.stderr


def listed(command, folder, text):
    """Runs a command that reads a list on stdin, in a process of its own: (exit code, stdout, stderr)."""
    (folder / "list").write_text(text, newline="")
    for name in ("stdout", "stderr"):
        (folder / name).unlink(missing_ok=True)
    code = forks.end(forks.begin(folder, command, stdin="list"))
    return code, (folder / "stdout").read_text(), (folder / "stderr").read_text()


def test_a_list_on_stdin_is_read_before_coco_results_begin(known, two, tmp_path):
    command = ["-q", "detect", known, "-", "--coco", "-", "--device", "cpu"]
    code, stdout, _ = listed(command, tmp_path, f"{two[0]}\n{two[1]}\n")
    assert {row["image_id"] for row in strict(stdout)} == {139, 7} and code == 0
    code, stdout, errors = listed(command, tmp_path, f"{two[0]}\n{two[0]}\n")
    assert (code, stdout) == (1, "")
    assert errors == f"Error: No COCO results: given more than once: {two[0]}. Give each picture once.\n"


def test_a_folder_and_a_pattern(known, two, pictures, ssdtrt):
    pictures("deep/8.png")
    done = ssdtrt("detect", known, "pictures", "pictures/d*/*.png", "--jsonl", "-", "--device", "cpu")
    images = [strict(line)["image"] for line in done.stdout.splitlines()]
    assert images == ["pictures/000139.png", "pictures/7.png", "pictures/deep/8.png", "pictures/deep/8.png"]


def test_what_a_run_drew_is_no_picture_of_the_next(known, two, ssdtrt):
    """Three times in the same folder, and into another one."""
    for number, options in enumerate(([], [], [], ["-o", "b"])):
        done = ssdtrt("-q", "detect", known, ".", *options, "--device", "cpu")
        assert done.exit_code == 0 and "6 objects in 2 pictures" in done.stdout
        earlier = ("./detections", "./detections-2", "./detections-3")[:number]
        notes = "; ".join(f"the folder {folder}: results of an earlier run; name it to read it" for folder in earlier)
        assert done.stderr == (f"note: .: left out {notes}.\n" if number else "")
    done = ssdtrt("-q", "detect", known, "detections", "--jsonl", "-", "--device", "cpu")
    assert_refused(
        done, "detections holds no pictures (left out 2 files (.jpg): drawn by an earlier run; 1 (.json): no picture)."
    )
    done = ssdtrt("-q", "detect", known, "detections/7.jpg", "--jsonl", "-", "--device", "cpu")  # Named as a file.
    assert done.exit_code == 0 and strict(done.stdout)["image"] == "detections/7.jpg"


def test_a_folder_that_is_read_and_written_again_and_again(known, two, ssdtrt, tmp_path):
    """With crops, then without; a pattern that the shell expanded names the drawings too."""
    call = partial(ssdtrt, "-q", "detect", known, "-o", "pictures", "--device", "cpu")
    own = ["000139.png", "7.png"]
    for options in (["--save-crops"], ["--save-crops", "--no-labels"], []):
        done = call("pictures", *options)
        assert done.exit_code == 0 and "6 objects in 2 pictures" in done.stdout
        crops = ", 6 crops" if "--save-crops" in options else ""
        assert done.stdout.splitlines()[-1] == f"written to pictures: 2 pictures{crops} and detections.json"
        assert visible("pictures") == ["000139.jpg", *own[:1], "7.jpg", *own[1:], *["crops"] * bool(crops),
                                       "detections.json"]  # fmt: skip
        entries = pictures_in(tmp_path / "pictures")
        named = [one.get("crop") for entry in entries for one in entry["detections"]]
        assert named[:2] == (["crops/cat/000139.jpg", "crops/dog/000139.jpg"] if crops else [None, None])
        assert all((tmp_path / "pictures" / name).is_file() for name in named if name)
    assert done.stderr == "note: pictures: left out 8 files (.jpg): drawn by an earlier run; 1 (.json): no picture.\n"
    done = call(*sorted((tmp_path / "pictures").glob("[0-9]*.*")))
    assert (
        "6 objects in 2 pictures" in done.stdout and "left out 2 files (.jpg): drawn by an earlier run" in done.stderr
    )
    before = {name: (tmp_path / "pictures" / name).read_bytes() for name in visible("pictures")}
    done = call("pictures/7.jpg")  # Named as a file, and would be removed before it is read.
    assert_refused(done, "pictures/7.jpg is no picture (left out 1 file (.jpg): drawn by an earlier run).")
    assert {name: (tmp_path / "pictures" / name).read_bytes() for name in visible("pictures")} == before


def test_classes_and_the_iou_of_nms_are_options(known, detector_file, photographs, two, ssdtrt, tmp_path):
    call = partial(ssdtrt, "-q", "detect", "--device", "cpu", "--jsonl", "-")
    done = call(known, two[0], "--classes", "1, dog", "--max-detections", 1)
    assert [one["label"] for one in strict(done.stdout)["detections"]] == ["dog"]
    done = call(known, two[0], "--classes", "dgo")
    assert_refused(done, "There is no class 'dgo'; expected a name or a number of 1..80. Did you mean 'dog'?")
    twins = known_file(tmp_path / "twins.ts", network=Twins)
    for iou, edges in (([], [13.0]), (["--nms-iou", 0.82], [13.0]), (["--nms-iou", 0.84], [13.0, 4.42])):
        found = strict(call(twins, two[0], *iou).stdout)["detections"]
        assert [one["box"][0] for one in found] == pytest.approx(edges, abs=0.011)
    for wrong in ("0", "1.1", "nan", "x"):
        assert call(known, two[0], "--nms-iou", wrong).exit_code == 2
    assert_refused(
        ssdtrt("-q", "detect", detector_file, photographs[0], "--jsonl", "-", "--nms-iou", 0.6),
        f"{detector_file} is a detector file, whose NMS has the IoU 0.5 inside; found 0.6. Give its module or an engine, "
        "or leave --nms-iou (nms_iou) out.",
    )
    assert ssdtrt("-q", "detect", detector_file, photographs[0], "--jsonl", "-", "--nms-iou", 0.5).exit_code == 0


@pytest.mark.parametrize("option", ["--save-crops", "--no-labels", "--side-by-side"])
def test_what_draws_needs_a_folder(known, two, ssdtrt, option):
    done = ssdtrt("detect", known, two[0], "--jsonl", "-", option)
    assert done.exit_code == 2 and f"{option} draws pictures: give -o too." in done.stderr


def test_what_a_folder_is_read_without_is_noted(known, two, ssdtrt, tmp_path):
    (tmp_path / "pictures" / "a.dng").touch()
    (tmp_path / "pictures" / "clip.mpg").touch()
    done = ssdtrt("-q", "detect", known, "pictures", "--jsonl", "-", "--device", "cpu")
    assert done.exit_code == 0 and len(done.stdout.splitlines()) == 2
    assert done.stderr.splitlines()[0] == (
        "note: pictures: left out 1 file (.dng): cameras' raw files, to be developed to JPEG or TIFF; 1 (.mpg): no picture."
    )


def test_ranges_and_limits_of_pixels_are_options(known, module, ssdtrt, tmp_path):
    """A red picture of 12 bits, for every command that reads pictures."""
    row = b"\0" + np.array([[4000, 0, 0]] * 20, ">u2").tobytes()
    (tmp_path / "1.png").write_bytes(png(20, 10, 16, 2, row * 10))
    note = "1.png: its values of more than 8 bits are read as 0..4095, the range that they fill; --range (value_range) gives"
    many = "1.png cannot be read as a picture (it has more than 199 pixels; --max-pixels (max_pixels) allows more)."
    call = ["-q", "detect", known, "1.png", "--jsonl", "-", "--device", "cpu"]
    for options, label in (([], "cat"), (["--range", "-5:4095"], "cat"), (["--range", "0:65535"], "car")):
        done = ssdtrt(*call, *options)
        assert strict(done.stdout)["detections"][0]["label"] == label
        assert (note in done.stderr) == (not options)
    assert many in ssdtrt(*call, "--max-pixels", 199).stderr
    for wrong in ("5", "5:1", "a:b", "0:inf", "nan:1"):
        done = ssdtrt(*call, "--range", wrong)
        assert done.exit_code == 2 and f"'{wrong}' is not LOW:HIGH, such as 0:4095." in done.stderr
    write_annotations(tmp_path / "a.json", {1: "1.png"}, [(1, 3, [0, 0, 9, 9])])
    call = ["-q", "evaluate", known, "--images", ".", "--annotations", "a.json", "--device", "cpu", "--json", "-"]
    assert any(one.startswith(note) for one in strict(ssdtrt(*call).stdout)["notes"])
    assert strict(ssdtrt(*call, "--range", "0:4095").stdout)["notes"] == []
    assert strict(ssdtrt(*call, "--max-pixels", 199).stdout)["failures"] == [many]
    call = ["-q", "verify", module, "1.png", "--device", "cpu", "--json", "-"]
    assert note in ssdtrt(*call).stderr and ssdtrt(*call, "--range", "0:4095").stderr == ""
    assert many in ssdtrt(*call, "--max-pixels", 199).stderr


def test_a_list_on_stdin_and_pictures_that_lie_in_the_output_folder(known, pictures, tmp_path):
    paths = [pictures("red.jpg"), pictures("7.png", BLUE, (60, 40))]
    before = paths[0].read_bytes()
    command = ["detect", known, "-", "-o", paths[0].parent, "--jsonl", "-", "--device", "cpu"]
    code, stdout, errors = listed(command, tmp_path, f"{paths[0]}\r\n\n{paths[1]}\nnone.png\n")
    assert [strict(line)["image"] for line in stdout.splitlines()] == [str(path) for path in paths]
    assert code == 1 and "Error: none.png: no such file." in errors.splitlines()
    assert paths[0].read_bytes() == before
    assert visible(paths[0].parent) == ["7.jpg", "7.png", "detections.json", "red-2.jpg", "red.jpg"]


def test_an_empty_list_is_an_error_and_costs_no_earlier_results(known, two, ssdtrt, tmp_path):
    assert ssdtrt("-q", "detect", known, *two, "-o", "out", "--device", "cpu").exit_code == 0
    before = (tmp_path / "out" / "detections.json").read_bytes()
    done = ssdtrt("-q", "detect", known, "-", "-o", "out", "--jsonl", "d.jsonl", "--device", "cpu")
    assert_refused(done, "- (the list on stdin) names no picture.")
    assert (tmp_path / "out" / "detections.json").read_bytes() == before and not (tmp_path / "d.jsonl").exists()


def test_a_list_of_names_mistyped_costs_no_earlier_results(known, two, ssdtrt, tmp_path):
    call = partial(ssdtrt, "-q", "detect", known, "-", "-o", "out", "--device", "cpu")
    assert call(input=f"typo.jpg\n{two[0]}\nthree.jpg\n".encode()).exit_code == 1
    before = (tmp_path / "out" / "detections.json").read_bytes()
    assert [found["image"] for found in strict(before)["pictures"]] == [str(two[0])]
    done = call(input=b"typo.jpg\nthree.jpg\n")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "Error: typo.jpg: no such file.\nError: three.jpg: no such file.\n"
    assert (tmp_path / "out" / "detections.json").read_bytes() == before


def test_a_picture_in_the_place_of_a_list_is_one_line_and_costs_no_earlier_results(
    known, two, pictures, ssdtrt, tmp_path
):
    assert ssdtrt("-q", "detect", known, *two, "-o", "out", "--device", "cpu").exit_code == 0
    before = (tmp_path / "out" / "detections.json").read_bytes()
    for name in ("1.jpg", "1.png", "1.gif", "1.webp", "1.tif"):
        content = pictures(name).read_bytes()
        done = ssdtrt("-q", "detect", known, "-", "-o", "out", "--device", "cpu", input=content)
        assert_refused(
            done, "stdin begins as a picture does; expected a list of paths. Give the picture's path, not -."
        )
    assert (tmp_path / "out" / "detections.json").read_bytes() == before


def test_a_list_of_find_print0_in_utf_8_with_a_mark(known, pictures, ssdtrt, tmp_path):
    """Through the command, with a folder whose name has brackets and a list that has a byte-order mark."""
    pictures("set [v1]/1.png")
    call = partial(ssdtrt, "-q", "detect", known, "--device", "cpu", "--jsonl", "-")
    listed = b"\xef\xbb\xbfpictures/set [v1]/1.png\0"
    for done in (call("-", input=listed), call("pictures/set [v1]/*.png")):
        assert done.exit_code == 0, done.stderr
        assert [strict(line)["image"] for line in done.stdout.splitlines()] == ["pictures/set [v1]/1.png"]


def test_side_by_side_draws_the_eager_model_too(module, photographs, ssdtrt, tmp_path):
    done = ssdtrt("-q", "detect", module, photographs[2], "--side-by-side", "-o", "out", "--device", "cpu")
    assert done.exit_code == 0, done.stderr
    with Image.open(tmp_path / "out" / photographs[2].name.replace(".png", ".jpg")) as opened:
        assert 1200 <= opened.width <= 1240


def test_detect_follows_the_preparation_that_the_file_records(known, photographs, ssdtrt, tmp_path):
    hub = known_file(tmp_path / "hub.ts", preprocess="hub")
    done = ssdtrt("-q", "detect", hub, photographs[2], "--jsonl", "-", "--device", "cpu")
    (found,) = lines_of(done.stdout)
    assert found == Detector(hub, "cpu")(photographs[2:3])[0].as_dict()
    assert found != Detector(known, "cpu")(photographs[2:3])[0].as_dict()


def test_a_detector_file_is_an_engine_to_everything(detector_file, engine, photographs, ssdtrt):
    images = synthetic_images(2, seed=3)
    runner, plain = load_engine(detector_file), load_engine(engine)
    for mine, other in zip(runner(images), plain(images)):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-4)  # Fused or not yet.
    assert runner.is_detector and not plain.is_detector
    found, expected = (Detector(one)(photographs[:1])[0] for one in (runner, plain))
    assert_same(found.as_dict(), expected.as_dict())
    done = ssdtrt("-q", "detect", detector_file, photographs[0], "--jsonl", "-")
    assert_same(*lines_of(done.stdout), expected.as_dict())


def assert_same(found, expected):
    """Two pictures' detections, but for the last digit."""
    found, expected = dict(found), dict(expected)
    pairs = list(zip(found.pop("detections"), expected.pop("detections"), strict=True))
    assert found == expected and pairs
    for mine, other in pairs:
        assert mine["label"] == other["label"]
        assert mine["score"] == pytest.approx(other["score"], abs=1e-5)
        assert mine["box"] == pytest.approx(other["box"], abs=0.02)


def test_a_detector_file_gives_what_detecting_with_it_gives(detector_file, photographs):
    """The scripted whole, uint8 in, beside the package's own way."""
    with Image.open(photographs[0]) as opened:
        square = opened.convert("RGB").resize((300, 300), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None]
    boxes, labels, scores, counts = torchscript.load(detector_file)(pixels)
    (found,) = Detector(detector_file, threshold=0.0)([square])
    assert int(counts[0]) == len(found.detections) > 10
    assert [d.label_id for d in found.detections] == labels[0, : counts[0]].tolist()
    assert [d.score for d in found.detections] == pytest.approx(scores[0, : counts[0]].tolist(), abs=2e-6)
    edges = (boxes[0, : counts[0]] * 300).clamp(0, 300)
    assert np.allclose([d.box for d in found.detections], edges.numpy(), atol=0.02)


def test_a_detector_file_is_verified_and_measured(detector_file, photographs):
    report = verify_engine(detector_file, photographs[:1])
    assert report.passed and report.precision == "fp32"
    measured = bench_files([detector_file], rounds=1, iterations=1, warmup=1, batch_sizes=[1])
    assert measured.rows[-1].name == str(detector_file) and measured.rows[-1].agreement.passed


def failing_after(calls, error, monkeypatch):
    """The network raises `error` from that call on; loading is one call."""
    real, count = FileRunner.__call__, []

    def run(runner, images):
        count.append(len(images))
        if len(count) > calls:
            raise error
        return real(runner, images)

    monkeypatch.setattr(FileRunner, "__call__", run)
    return count


LOST = RuntimeError("CUDA error: unspecified launch failure\nCompile with `TORCH_USE_CUDA_DSA`")
LOST_MESSAGE = "Error: The GPU failed (CUDA error: unspecified launch failure). What was finished is kept. "


def test_a_gpu_that_disappears_leaves_what_was_finished(known, pictures, ssdtrt, monkeypatch, tmp_path):
    paths = [pictures(f"{number}.png") for number in range(1, 8)]
    failing_after(3, LOST, monkeypatch)  # Loading, and two batches of two.
    outputs = ["--jsonl", "d.jsonl", "--coco", "r.json", "-o", "out"]
    done = ssdtrt("-q", "detect", known, *paths, *outputs, "--device", "cpu")
    assert (done.exit_code, done.stdout) == (1, "") and isinstance(done.exception, SystemExit)
    assert done.stderr.startswith(LOST_MESSAGE) and len(done.stderr.splitlines()) == 1
    images = [str(path) for path in paths[:4]]
    assert [strict(line)["image"] for line in (tmp_path / "d.jsonl").read_text().splitlines()] == images
    assert [entry["image"] for entry in pictures_in(tmp_path / "out")] == images
    assert {row["image_id"] for row in strict((tmp_path / "r.json").read_text())} == {1, 2, 3, 4}


def test_a_gpu_that_disappears_while_loading_or_comparing(known, module, photographs, ssdtrt, monkeypatch):
    failing_after(0, LOST, monkeypatch)
    for arguments in (["detect", known, photographs[0]], ["verify", module, photographs[0]], ["bench", module]):
        done = ssdtrt("-q", *arguments, "--device", "cpu")
        assert (done.exit_code, done.stdout) == (1, "") and isinstance(done.exception, SystemExit)
        assert done.stderr.startswith(LOST_MESSAGE) and len(done.stderr.splitlines()) == 1


def test_a_failure_of_the_gpu_anywhere_is_one_message_and_a_bug_keeps_its_traceback(module, ssdtrt, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("ssdtrt.bench.bench_files", fail)
    error = LOST
    done = ssdtrt("bench", module)
    assert done.exit_code == 1 and done.stderr.startswith(LOST_MESSAGE)
    error = RuntimeError("shape '[7]' is invalid")
    assert ssdtrt("bench", module).exception is error


def test_a_full_gpu_is_said_and_every_picture_done(known, pictures, ssdtrt, monkeypatch, tmp_path):
    paths = [pictures(f"{number}.png") for number in range(5)]
    real = FileRunner.__call__

    def run(runner, images):
        if len(images) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return real(runner, images)

    monkeypatch.setattr(FileRunner, "__call__", run)
    done = ssdtrt("-q", "detect", known, *paths, "--jsonl", "-", "--device", "cpu")
    assert done.exit_code == 0
    assert done.stderr.startswith("note: There is not enough memory for 2 pictures at once; going on with 1.\n")
    assert lines_of(done.stdout) == [one.as_dict() for one in Detector(known, "cpu")(paths)]
    categories = dict(zip(config.COCO_CATEGORY_IDS[1:], config.COCO_LABELS[1:]))
    objects = [(1, 17, [13.0, 6.5, 174.0, 87.0])]
    names = {number: path.name for number, path in enumerate(paths, 1)}
    annotations = write_annotations(tmp_path / "a.json", names, objects, categories)
    done = ssdtrt("-q", "evaluate", known, "--images", "pictures", "--annotations", annotations, "--device", "cpu")
    assert done.exit_code == 0
    assert "note: There is not enough memory for 2 pictures at once; going on with 1." in done.stdout


@pytest.fixture
def many(pictures, tmp_path):
    """A folder of some hundred pictures."""
    first = pictures("0000.png", RED, (300, 200))
    for number in range(1, 1500):
        os.link(first, first.with_name(f"{number:04}.png"))
    return first.parent


def interrupted(arguments, folder, begun):
    """Runs a command, sends SIGINT once `begun` holds: (exit code, stderr)."""
    child = forks.begin(folder, [*arguments, "--device", "cpu"])
    end = time.monotonic() + 60
    while not begun():
        assert os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < end, "it ended, or did not begin"
        time.sleep(0.01)
    os.killpg(child, signal.SIGINT)
    return forks.end(child), (folder / "stderr").read_text()


@POSIX
def test_ctrl_c_leaves_whole_json_lines_and_a_valid_folder(known, many, tmp_path):
    out, lines = tmp_path / "out", tmp_path / "out.jsonl"
    begun = lambda: out.is_dir() and len(list(out.glob("*.jpg"))) >= 3  # noqa: E731
    arguments = ["detect", known, many, "-o", out, "--jsonl", lines, "--coco", "r.json"]
    code, errors = interrupted(arguments, tmp_path, begun)
    assert (code, errors.splitlines()[-1]) == (130, INTERRUPTED) and "Traceback" not in errors
    text = lines.read_text()
    assert text.endswith("\n")
    found = [strict(line) for line in text.splitlines()]
    assert 3 <= len(found) < 1500
    assert [entry["image"] for entry in found] == [str(many / f"{number:04}.png") for number in range(len(found))]
    entries = pictures_in(out)
    assert 3 <= len(entries) < 1500
    numbers = {row["image_id"] for row in strict((tmp_path / "r.json").read_text())}
    assert len(entries) - 1 <= len(numbers) <= len(entries)
    names = set(visible(out)) - {"detections.json"}
    assert names <= {f"{number:04}.jpg" for number in range(len(entries) + 1)}  # And nothing half-written.
    for name in names:
        with Image.open(out / name) as opened:
            opened.load()


@pytest.mark.parametrize("folder, reason", [("taken", "File exists"), ("taken/out", "Not a directory")])
def test_an_unwritable_folder_for_pictures(folder, reason, known, two, ssdtrt, tmp_path):
    (tmp_path / "taken").write_text("a file")
    done = ssdtrt("-q", "detect", known, two[0], "-o", folder, "--device", "cpu")
    assert_refused(done, f"{folder} cannot be written: {reason}. Give another with -o.")


def test_unreadable_pictures_among_good_ones(known, photographs, ssdtrt, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "cut.jpg").write_bytes(photographs[0].read_bytes()[:2000])
    good = [photographs[0], photographs[1]]
    (tmp_path / "empty").mkdir()
    done = ssdtrt(
        "detect", known, good[0], "text.jpg", "none.jpg", "empty", "cut.jpg", good[1], "-o", "out", "--device", "cpu"
    )
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert errors[0] == "Error: empty holds no pictures."  # Known before the first is read.
    assert errors[1].startswith("Error: text.jpg cannot be read as a picture (")
    assert errors[2] == "Error: none.jpg: no such file."
    assert errors[3].startswith("Error: cut.jpg cannot be read as a picture (")
    assert len(errors) == 4 and "Traceback" not in done.stderr
    assert done.stdout.splitlines()[-1] == "written to out: 2 pictures and detections.json"
    found = pictures_in(tmp_path / "out")
    assert [entry["image"] for entry in found] == [str(path) for path in good]
    assert all((tmp_path / "out" / path.name).exists() for path in good)


# What is shown


def test_detections_text():
    cats = (Detection("cat", 16, 0.914, (0, 0, 9, 9)), Detection("dog", 17, 0.5, (0, 0, 9, 9)))
    found = [ImageDetections("a.jpg", 10, 10, cats), ImageDetections("empty.jpg", 10, 10, ())]
    assert detections_text(found, 80) == (
        "picture    objects      best\na.jpg            2  cat 0.91\nempty.jpg        0         -"
    )


def test_detections_text_without_pictures():
    assert detections_text([], 80) == "no picture was read"


def test_summary_text():
    first = (ImageDetections("a.jpg", 10, 10, ()),)
    lines = summary_text(Summary(1500, 4000, 3.0, first, ()), 80).splitlines()
    assert lines[1:] == ["a.jpg          0     -", "and 1499 more", "4,000 objects in 1,500 pictures, 500.0 images/s"]
    assert summary_text(Summary(0, 0, 0.0, (), ()), 80) == "no picture was read"


def test_addresses_are_pictures(known, two, ssdtrt, web, tmp_path):
    """With outputs of all kinds; none is fetched twice, and no password is written."""
    for path in two:
        web.pages[f"/x/{path.name}?a=b.c"] = path.read_bytes()
    names = [web.address(f"/x/{path.name}?a=b.c") for path in two]
    given = [web.address(f"/x/{path.name}?a=b.c", user="me:secret@") for path in two]
    arguments = ["-o", "out", "--jsonl", "-", "--coco", "r.json", "--device", "cpu", "--allow-private"]
    done = ssdtrt("detect", known, *given, *arguments)
    assert done.exit_code == 0 and [line["image"] for line in lines_of(done.stdout)] == names
    files = [found.as_dict()["detections"] for found in Detector(known, "cpu")(two)]
    assert [line["detections"] for line in lines_of(done.stdout)] == files
    assert visible("out") == ["000139.jpg", "7.jpg", "detections.json"] and len(web.requests) == 2
    assert {row["image_id"] for row in strict((tmp_path / "r.json").read_text())} == {139, 7}
    written = [path.read_bytes() for path in (tmp_path / "out").iterdir()]
    assert not [text for text in (done.stdout.encode(), done.stderr.encode(), *written) if b"secret" in text]


def test_annotations_name_the_end_of_an_address(known, two, ssdtrt, web, tmp_path):
    web.pages["/val/in%20a.png?b=/c.png"] = two[0].read_bytes()
    annotations = write_annotations(tmp_path / "val.json", {5: "val/in a.png"}, [(5, 1, [1, 2, 3, 4])], {1: "cat"})
    arguments = ["--coco", "-", "--annotations", annotations, "--device", "cpu", "--allow-private"]
    done = ssdtrt("-q", "detect", known, web.address("/val/in%20a.png?b=/c.png"), *arguments)
    assert [row["image_id"] for row in strict(done.stdout)] == [5]


def test_results_are_not_lost_to_an_address_mistyped(known, two, ssdtrt, web, tmp_path):
    arguments = ["-o", "out", "--jsonl", "d.jsonl", "--device", "cpu"]
    assert ssdtrt("detect", known, *two, *arguments).exit_code == 0
    before = [(tmp_path / name).read_bytes() for name in ("out/detections.json", "d.jsonl")]
    web.pages["/a.png"] = two[0].read_bytes()
    address = web.address("/a.png")
    done = ssdtrt("-q", "detect", known, address, "typo.jpg", *arguments)
    assert (done.exit_code, done.stdout) == (1, "") and done.stderr == (
        f"Error: {address} cannot be fetched (its host is on this machine or in a private network; --allow-private "
        "(allow_private) fetches from there).\nError: typo.jpg: no such file.\n"
    )
    assert not web.requests
    web.pages["/late.png"] = lambda _: web.leave.wait(20)
    for page, options in (("/a.png", ["--max-bytes", "9"]), ("/late.png", ["--timeout", "0.2"])):
        done = ssdtrt("-q", "detect", known, web.address(page), "--allow-private", *options, *arguments)
        assert done.exit_code == 1 and len(done.stderr.splitlines()) == 1 and options[0] in done.stderr
    assert [(tmp_path / name).read_bytes() for name in ("out/detections.json", "d.jsonl")] == before
    done = ssdtrt("-q", "detect", known, web.address("/none"), address, "--allow-private", *arguments)
    assert done.exit_code == 1 and "none cannot be fetched (the server answered 404" in done.stderr
    assert [line["image"] for line in lines_of((tmp_path / "d.jsonl").read_text())] == [address]
