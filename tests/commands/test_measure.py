"""`evaluate` as a command: what goes where, and what ends it with 1."""

import json

import pytest
from coco_files import write_annotations
from command_line import strict

from ssdtrt import config
from ssdtrt.detect import Detector


def test_evaluate_against_eager_gives_json_alone_on_stdout(engine, photographs, ssdtrt, tmp_path):
    """On what the engine itself finds, so that the figures are 1 and the FP32 model's are the same."""
    objects = []
    for number, found in enumerate(Detector(engine, threshold=0.4)(photographs), 1):
        for one in found.detections:
            left, top, right, bottom = one.box
            objects.append((number, config.COCO_CATEGORY_IDS[one.label_id], [left, top, right - left, bottom - top]))
    images = {number: path.name for number, path in enumerate(photographs, 1)}
    categories = dict(zip(config.COCO_CATEGORY_IDS[1:], config.COCO_LABELS[1:]))
    annotations = write_annotations(tmp_path / "a.json", images, objects, categories)
    arguments = ["--images", photographs[0].parent, "--annotations", annotations]
    done = ssdtrt("evaluate", engine, *arguments, "--against", "eager-fp32", "--json", "-", "--coco", "r.json")
    assert done.exit_code == 0, done.stderr
    report = strict(done.stdout)
    assert report["figures"]["AP"] == pytest.approx(1.0, abs=1e-9) and report["images"] == 3
    (baseline,) = report["against"]
    assert (baseline["name"], baseline["precision"]) == ("eager-fp32", "fp32")
    differences = [value for value in baseline["difference"].values() if value is not None]
    assert len(differences) >= 6 and max(map(abs, differences)) <= 0.001
    rows = strict((tmp_path / "r.json").read_text())
    assert len(rows) == report["detections"] and {row["image_id"] for row in rows} == {1, 2, 3}


def test_evaluate_shows_the_figures_and_ends_with_1_for_a_broken_picture(known, pictures, ssdtrt, tmp_path):
    pictures("1.png")
    (tmp_path / "pictures" / "2.png").write_bytes(b"no picture")
    categories = dict(zip(config.COCO_CATEGORY_IDS[1:], config.COCO_LABELS[1:]))
    objects = [(1, 17, [13.0, 6.5, 174.0, 87.0])]
    annotations = write_annotations(tmp_path / "a.json", {1: "1.png", 2: "2.png"}, objects, categories)
    arguments = ["--images", "pictures", "--annotations", annotations, "--device", "cpu"]
    done = ssdtrt("-q", "evaluate", known, *arguments)
    assert done.exit_code == 1 and done.stderr.startswith("Error: pictures/2.png cannot be read as a picture (")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["AP", "1.000"] in rows and ["cat", "1.000", "1.000", "1"] in rows
    assert "note: 1 of 2 pictures could not be read; counted as without detections" in done.stdout


CATEGORIES = dict(zip(config.COCO_CATEGORY_IDS[1:], config.COCO_LABELS[1:]))
CAT = [13.05, 6.5, 173.9, 87.0]  # what `known` finds in a red picture of 200 x 100


@pytest.fixture
def half(pictures, tmp_path):
    """Annotations by which `known` has AP 0.5: a cat that it finds, and a dog that it does not. Their arguments."""
    pictures("1.png")
    objects = [(1, 17, CAT), (1, 18, [150, 0, 40, 90])]
    write_annotations(tmp_path / "a.json", {1: "1.png"}, objects, CATEGORIES)
    return ["--images", "pictures", "--annotations", "a.json", "--device", "cpu"]


def test_accuracy_gates_end_with_1_after_everything_is_written(known, half, ssdtrt, tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    arguments = ["-q", "evaluate", known, *half, "--json", "e.json", "--markdown", "e.md", "--coco", "r.json"]
    done = ssdtrt(*arguments, "--min-ap", "0.51")
    assert done.exit_code == 1
    assert done.stderr == "Error: known.ts has AP 0.5; expected at least 0.51 (--min-ap).\n"
    assert "\nAP      0.500\n" in done.stdout
    assert json.loads((tmp_path / "e.json").read_text())["figures"]["AP"] == 0.5
    page = (tmp_path / "e.md").read_text()
    assert page.startswith("### ssdtrt evaluate\n") and "\n| AP | 0.500 |\n" in page
    assert page.endswith("known.ts has AP 0.5; expected at least 0.51 (--min-ap).\n")
    assert (tmp_path / "summary.md").read_text() == page + "\n"
    assert len(strict((tmp_path / "r.json").read_text())) == 3
    done = ssdtrt(*arguments, "--min-ap", "0.5")
    assert (done.exit_code, done.stderr) == (0, "")
    done = ssdtrt("-q", "evaluate", known, *half, "--markdown", "-", "--min-ap", "0.51")
    assert done.exit_code == 1 and done.stdout == page.replace(page.split(" detections, ")[1].split("/s")[0],
                                                               done.stdout.split(" detections, ")[1].split("/s")[0])  # fmt: skip


def test_the_drop_is_against_the_baseline_of_the_same_run(module, photographs, ssdtrt, tmp_path):
    """The same network: AP is the same, and a drop of 0 passes."""
    images = {number: path.name for number, path in enumerate(photographs, 1)}
    write_annotations(tmp_path / "a.json", images, [(1, 17, CAT)], CATEGORIES)
    arguments = ["--images", photographs[0].parent, "--annotations", "a.json", "--device", "cpu"]
    done = ssdtrt("-q", "evaluate", module, *arguments, "--against", "eager-fp32", "--max-ap-drop", "0")
    assert (done.exit_code, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--max-ap-drop", "0.01"], "--max-ap-drop compares with a baseline: give --against eager-fp32 too."),
        (["--min-ap", "25"], "25.0 is not in the range 0<=x<=1."),
        (["--min-ap", "nan"], "'nan' is not in the range 0<=x<=1."),
        (["--max-ap-drop", "-0.1", "--against", "eager-fp32"], "-0.1 is not in the range 0<=x<=1."),
        (["--markdown", "e", "--json", "e"], "Only one of --json and --markdown can be written to e."),
        (["--markdown", "a.json"], "a.json is an input; give another path for --markdown."),
    ],
)
def test_gates_that_make_no_sense_are_wrong_usage(options, message, half, ssdtrt):
    done = ssdtrt("evaluate", "none.ts", *half, *options)
    assert (done.exit_code, done.stdout) == (2, "") and message in done.stderr


def test_orient_and_subset(known, half, pictures, ssdtrt, tmp_path):
    data = json.loads((tmp_path / "a.json").read_text())
    data["images"].append({"id": 2, "file_name": "2.png"})
    (tmp_path / "a.json").write_text(json.dumps(data))
    done = ssdtrt("-q", "evaluate", known, *half)
    assert (
        done.exit_code == 1
        and "pictures lacks 1 of the 2 pictures that a.json lists: 2.png. " in done.stderr
        and "--subset" in done.stderr
    )
    done = ssdtrt("-q", "evaluate", known, *half, "--subset", "--orient", "--json", "-")
    report = strict(done.stdout)
    assert (report["images"], report["figures"]["AP"], report["settings"]["orient"]) == (1, 0.5, True)
