"""One HTML page of saved reports: their numbers, nothing else, and nothing that a browser would fetch or run."""

import base64
import copy
import io
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise, product

import pytest
from PIL import Image
from saved_evaluations import evaluation

from conftest import ROOT
from saved_reports import (
    CPU,
    FAILED_ROW,
    GPU,
    SETTINGS,
    accuracy,
    bench_report,
    bench_row,
    eager,
    engine,
    parity,
    report,
    save,
)
from ssdtrt import write_page
from ssdtrt.benchmarking.compare import compare_files
from ssdtrt.errors import ReportError
from ssdtrt.reporting.page import page as made_page
from ssdtrt.reporting.sources import read_source

RECORDED = ROOT / "benchmarks" / "reports"
HOSTILE = "<script>alert(1)</script><img src=x onerror='a'>\"&amp;\u202e\n\udcff"
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """A page as a browser sees it: texts, attributes, headings, and every cell by its table's caption."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.attributes, self.texts, self.tables = [], [], [], [], {}
        self.feed(text)
        assert not self.open, "every element is closed"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.row = []
        if tag in ("td", "th"):
            self.row.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "tr":
            self.tables[self.caption].append(self.row)

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.texts.append(data)
        if self.open and self.open[-1] == "caption":
            self.caption = data
            self.tables[data] = []
        elif "td" in self.open or "tbody" in self.open or "th" in self.open:
            self.row[-1] += data

    @property
    def text(self):
        return "".join(self.texts)

    def values(self, name):
        return [value for _, attribute, value in self.attributes if attribute == name]


@pytest.fixture
def page(tmp_path):
    """Makes a page of files and reads it: `page(file, ...)` -> Page."""

    def make(*files):
        return Page(write_page(files, tmp_path / "report.html").read_text(encoding="utf-8"))

    return make


def test_the_figures_of_recorded_reports_are_on_the_page(page):
    found = page(RECORDED / "h200-b1-default.json", RECORDED / "h200-accuracy.json", RECORDED / "h200-verify-b8.json")
    assert found.tables["Every measured row (h200-b1-default.json)"][:3] == [
        ["runner", "batch", "median ms", "speed-up", "95 % of it", "images/s", "p99 ms", "memory MiB", "build s"],
        ["eager-fp32", "1", "7.987", "1.00x", "1.00 to 1.00", "125", "8.224", "210", "-"],
        ["ssd300.engine.ts FP16", "1", "0.394", "20.25x", "20.21 to 20.28", "2,535", "0.399", "82", "96"],
    ]
    assert "2,535 images/s, 0.394 ms, 20.25x" in found.text
    figures = found.tables["COCO's figures (h200-accuracy.json)"]
    assert figures[0] == ["figure", "scenes.detector.ts", "eager", "difference", "eager-fp16", "difference"]
    assert figures[1] == ["AP average precision, IoU 0.50 to 0.95", "0.780", "0.780", "+0.0001", "0.780", "+0.0002"]
    classes = found.tables["Average precision of each class (h200-accuracy.json)"]
    assert len(classes) == 11 and ["disc", "0.847", "0.974", "535"] in classes
    verified = json.loads((RECORDED / "h200-verify-b8.json").read_text())
    row = next(cells for cells in found.tables["Comparisons with FP32"] if "h200-verify-b8.json" in cells[0])
    assert row[1:4] == ["passed", "FP16", str(verified["images"])]
    assert row[5] == f"{verified['outputs'][0]['relative_l2']:.2e}" and row[8] == str(
        verified["detections"]["reference"]
    )
    assert "NVIDIA H200, compute capability 9.0" in found.text and "580.159.04" in found.text
    for card in ("20.25x as fast", "passed", "AP 0.780"):
        assert card in found.texts


def test_bars_are_as_long_as_the_figures(page, tmp_path):
    found = page(save(tmp_path / "a.json", report(eager(8.0), engine(2.0, speedup=4.0))))
    lengths = [value for tag, name, value in found.attributes if (tag, name) == ("rect", "width")]
    assert lengths == ["100%", "25.00%", "100%", "100.00%"]  # Each track, then the bar in it: 125 of 500 images/s.
    assert "Throughput, images/s (higher is better)" not in found.text


def test_a_job_of_the_first_schema_is_read(page):
    """As it was recorded, before reports and the parts of an engine's build had their schema."""
    found = page(RECORDED / "h200-run.json")
    (row,) = found.tables["Comparisons with FP32"][1:2]
    assert row[1:3] == ["passed", "FP16"] and row[5] == "4.02e-03"
    facts = dict(zip(found.texts, found.texts[1:]))
    assert facts["built in"] == "105 s" and facts["back end"] == "tensorrt, front end torchscript"
    assert "NVIDIA H200, compute capability 9.0" in found.text and "0" * 64 not in found.text
    missing = found.text.split("What was not measured")[-1]
    assert "17.13x as fast" in found.texts  # The engine without a CUDA graph, as engines ran by default then.
    assert "auxiliary streams" not in found.text and "The memory that each takes" not in missing


def test_several_batch_sizes_are_lines_on_logarithmic_axes(page, tmp_path):
    rows = [row for size in (1, 4, 16) for row in (eager(8.0 * size, size), engine(float(size), size))]
    found = page(save(tmp_path / "a.json", report(*rows)))
    label = next(value for value in found.values("aria-label") if value.startswith("Time of a batch"))
    assert "eager FP32: batch 1 8.000 ms, batch 4 32.00 ms, batch 16 128.0 ms" in label
    marks = [value for tag, name, value in found.attributes if (tag, name) == ("svg", "x")]
    assert marks == ["14.00%", "55.50%", "97.00%"] * 4  # Two lines in two charts; 4 is half way from 1 to 16.
    assert "Images a second" not in found.text


def test_reports_of_one_machine_are_joined_and_others_are_not(page, tmp_path):
    one = save(tmp_path / "b1.json", report(eager(), engine()))
    eight = save(tmp_path / "b8.json", report(eager(16.0, 8), engine(2.0, 8)))
    again = save(tmp_path / "again.json", report(eager(), engine()))
    cpu = save(tmp_path / "cpu.json", report(eager(16.0, 8), engine(2.0, 8), machine=CPU))
    assert "(b1.json, b8.json)" in page(one, eight).text
    assert "(b1.json, again.json)" not in page(one, again).text  # Each has these rows.
    found = page(one, cpu)
    assert "(b1.json)" in found.text and "(cpu.json)" in found.text and "(b1.json, cpu.json)" not in found.text


def test_what_was_not_measured_is_said(page, tmp_path):
    made = bench_report(bench_row("eager-fp32", "fp32", case="eager-fp32"), FAILED_ROW)
    found = page(save(tmp_path / "a.json", made.document()))
    missing = found.text.split("What was not measured")[-1]
    for text in (
        "What was built: none of the files has the record of an engine.",
        "compile FP16, batch 8: no Triton (a.json)",
        "The confidence intervals of the speed-ups, which take three rounds (a.json).",
        "the speed is that of the network alone (a.json)",
        "Agreement with FP32: none of the files has it.",
        "Accuracy: none of the files is an evaluation on annotated pictures.",
        "Sample pictures: none of the files has detections.",
    ):
        assert text in missing
    assert found.texts.count("not measured") == 3
    assert ["compile FP16", "8", "failed", *"------"] in found.tables["Every measured row (a.json)"]
    found = page(save(tmp_path / "e.json", evaluation().document()))
    missing = found.text.split("What was not measured")[-1]
    assert "How much accuracy a.engine.ts loses against FP32 (e.json)." in missing
    assert "The accuracy of 1 class, of which the pictures show no object (e.json)." in missing
    assert "Speed: none of the files is a benchmark." in missing


def test_accuracy_of_a_benchmark_stands_beside_its_speed(page, tmp_path):
    rows = (eager(accuracy=accuracy(0.7801)), engine(2.0, accuracy=accuracy(0.7689, -0.0112)))
    pictures = {"annotations": "val.json", "min_score": 0.05, "nms_iou": 0.5, "max_detections": 200}
    found = page(save(tmp_path / "a.json", report(*rows, settings={**SETTINGS, "evaluation": pictures})))
    assert found.tables["Speed and accuracy (a.json)"] == [
        ["runner", "batch", "images/s", "AP", "against FP32", "AP50", "AP75"],
        ["eager-fp32", "1", "125", "0.780", "+0.0000", "0.968", "0.922"],
        ["b1.engine.ts FP16", "1", "500", "0.769", "-0.0112", "0.968", "0.922"],
    ]
    assert "AP is on 1,000 pictures (val.json)." in found.text and "Accuracy: none of the files" not in found.text


def test_a_profile_alone_has_a_speed_and_a_title(page):
    found = page(RECORDED / "h200-profile-default.json")
    assert "0.386 ms" in found.texts and "SSD300: ssd300.engine.ts" in found.texts


def test_figures_that_round_alike_are_one(page):
    assert "10.38x as fast" in page(RECORDED / "h200-b128-default.json").texts


def test_an_engine_that_fails_is_shown_as_such(page, tmp_path):
    found = page(save(tmp_path / "v.json", parity(loc=0.5).document()))
    assert "1 FAILED" in found.texts and "of 1 comparison" in found.texts
    assert "FP16 engine: The engine is too far from the FP32 model: relative L2 distance loc 5.00e-01" in found.text


def test_comparisons_are_shown(page, tmp_path):
    old = save(tmp_path / "old.json", report(eager(), engine()))
    new = save(tmp_path / "new.json", report(eager(), engine(1.5)))
    compared = compare_files(old, new, limit=0.1)
    found = page(save(tmp_path / "c.json", compared.document()))
    assert found.tables["Speed, old and new (c.json)"][2] == [
        "b1.engine.ts FP16", "slower", "1", "1.000", "1.500", "+50.0 %"
    ]  # fmt: skip
    assert "FAILED" in found.texts and compared.failures[0] in found.text
    found = page(save(tmp_path / "c.json", compare_files(old, new).document()))
    assert "no limit, so nothing is judged" in found.text and "passed" not in found.texts


def test_pictures_are_embedded_with_their_boxes(page, pictures, tmp_path):
    path = pictures("a&b.png", (0, 0, 255), (1600, 800))
    box = {"label": "<cat>", "label_id": 17, "score": 0.9, "box": [400.0, 200.0, 1200.0, 600.0]}
    gone = {"image": str(tmp_path / "gone.png"), "width": 3, "height": 3, "detections": []}
    other = {"image": str(pictures("other.png", size=(20, 10))), "width": 10, "height": 20, "detections": []}
    entry = {"image": str(path), "width": 1600, "height": 800, "detections": [box]}
    written = {"schema": 2, "kind": "detections", "pictures": [entry, gone, other]}
    first, found = (page(save(tmp_path / "d.json", data)) for data in (written["pictures"], written))
    assert first.text == found.text and first.attributes == found.attributes  # Schema 1 was the list alone.
    (source,) = found.values("src")
    assert found.values("alt") == ["a&b.png with 1 object drawn: <cat> 0.90"]
    with Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/jpeg;base64,")))) as shown:
        assert (shown.format, shown.size) == ("JPEG", (800, 400))
        blue = shown.getpixel((400, 380))
        assert blue[2] > 240 and max(blue[:2]) < 15
        edge = shown.getpixel((400, 299))
        assert max(abs(a - b) for a, b in zip(edge, blue)) > 60
    assert "1 of 3 pictures." in found.text and "untrained" not in found.text
    untrained = page(save(tmp_path / "d.json", {**written, "note": "untrained: random weights"})).text
    assert "untrained random numbers in d.json: " in untrained and "; untrained weights, the boxes mean" in untrained
    assert "Not shown: " in found.text and "gone.png" in found.text and ", and 1 more" in found.text
    away = page(save(tmp_path / "d.json", {**written, "pictures": [{**entry, "image": "http://127.0.0.1:9/a.png"}]}))
    assert "Not shown: http://127.0.0.1:9/a.png is an address, and a page fetches nothing." in away.text


def test_nothing_of_a_file_becomes_markup(page, tmp_path):
    machine = {**GPU, "gpu": HOSTILE, "cpu": HOSTILE}
    rows = eager(), engine(file=f"{HOSTILE}.ts"), engine(None, 2, HOSTILE, reason=HOSTILE), eager(8.0, 2)
    bench = save(tmp_path / "<b>.json", report(*rows, machine=machine, notes=[HOSTILE]))
    made = evaluation(0.25, notes=(HOSTILE,), name=HOSTILE).document()
    made["classes"][0]["name"] = HOSTILE
    box = {"label": HOSTILE, "label_id": 1, "score": 0.5, "box": [0, 0, 1, 1]}
    picture = tmp_path / 'x" onerror="y<.png'
    Image.new("RGB", (8, 8)).save(picture)
    entry = {"image": str(picture), "width": 8, "height": 8, "detections": [box]}
    found = page(bench, save(tmp_path / "e.json", made), save(tmp_path / "d.json", [entry]))
    assert not {"script", "link", "iframe", "b"} & set(found.tags) and found.tags.count("img") == 1
    assert not [name for _, name, _ in found.attributes if name.startswith("on")]
    shown = "<script>alert(1)</script><img src=x onerror='a'>\"&amp;\\u202e \\udcff"
    assert found.text.count(shown) > 8 and "<b>.json" in found.text
    assert any(f"{shown} 0.50" in alt for alt in found.values("alt"))


def test_nothing_is_fetched(tmp_path):
    files = (RECORDED / name for name in ("h200-b1-default.json", "h200-static.json", "h200-accuracy.json"))
    text = write_page(files, tmp_path / "a.html").read_text(encoding="utf-8")
    assert "http" not in text and "url(" not in text and "@import" not in text and "<script" not in text
    references = [
        (tag, value) for tag, name, value in Page(text).attributes if name in ("src", "href", "srcset", "action")
    ]
    assert references and all(tag == "a" and value.startswith("#") for tag, value in references)


def test_it_can_be_read_by_keyboard_and_by_ear(page):
    found = page(*(RECORDED / f"{name}.json" for name in ("h200-static", "cpu-torch2.14", "h200-accuracy")))
    levels = [int(tag[1]) for tag in found.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    ids = found.values("id")
    assert len(ids) == len(set(ids)) and [f"#{one}" for one in ids] == found.values("href")
    assert ("html", "lang", "en") in found.attributes
    assert found.tags.count("table") == found.tags.count("caption") == found.values("tabindex").count("0")
    assert {value for tag, name, value in found.attributes if (tag, name) == ("th", "scope")} == {"col", "row"}
    assert len(found.tables) == found.tags.count("table")  # No two have the same name.
    pictures = found.values("role").count("img") + found.values("aria-hidden").count("true")
    markers = [1 for tag, name, _ in found.attributes if (tag, name) == ("svg", "x")]  # in a picture that has a label
    assert pictures + len(markers) == found.tags.count("svg")


@pytest.mark.parametrize(
    "data, message",
    [
        ("text", "is not JSON (Expecting value: line 1 column 1 (char 0)). Expected a JSON file of ssdtrt (run, bench,"),
        ({"kind": "doctor", "schema": 2}, "is a report of kind 'doctor'. Expected a JSON file of ssdtrt (run, bench, "),
        ({"kind": ["x"]}, "is a report of kind \"['x']\". Expected a JSON file of ssdtrt (run, bench, "),
        ([1], "is no report of ssdtrt. Expected a JSON file of ssdtrt (run, bench, "),
        ({"kind": "parity", "schema": 2}, "is damaged (Object missing required field `precision`). Make it again."),
        ({"kind": "parity", "schema": 9}, "has the schema 9; expected 1 to 2. Update ssdtrt."),
        ({"kind": "run", "schema": 3}, "has the schema 3; expected 1 to 2. Update ssdtrt."),
        ({"kind": "detections", "schema": 1}, "has the schema 1; expected 2. Make it again."),
        ({"kind": "detections", "schema": 2}, "is damaged (Object missing required field `pictures`). Make it again."),
        ({"kind": "picture", "schema": 2}, "is a report of kind 'picture'. Expected a JSON file of ssdtrt (run, bench, "),
        ({"kind": "run", "schema": 2}, "is damaged ('bench'). Make it again."),
        ({"kind": "bench", "schema": 4}, "is damaged (Object missing required field `machine`). "),
        ({"kind": "inspection", "schema": 2, "file": "a", "bytes": 1, "bytes_per_parameter": None, "checked": True,
          "differs": [], "metadata": {}}, "is damaged (Object missing required field `kind`). Make it again."),
    ],
)  # fmt: skip
def test_what_is_no_report_is_refused_in_one_line(data, message, ssdtrt, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    done = ssdtrt("report", "x.json")
    assert (done.exit_code, done.stdout) == (1, "") and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"Error: x.json {message}")
    assert not (tmp_path / "report.html").exists()


def leaves(data, place=()):
    """The places of everything in JSON data."""
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield (*place, key)
        yield from leaves(value, (*place, key))


@pytest.mark.parametrize(
    "data", [report(eager(), engine(), engine(None, 2)), evaluation().document(), parity().document()],
    ids=["bench", "evaluation", "parity"],
)  # fmt: skip
def test_a_wrong_value_anywhere_is_refused_or_shown(data, tmp_path):
    path, shown = tmp_path / "a.json", 0
    for place, value in product(leaves(data), (None, -1, 0, 1e308, 5e-324, 10**400, "", [], {}, [1], {"a": 1}, True)):
        changed = copy.deepcopy(data)
        within = changed
        for key in place[:-1]:
            within = within[key]
        within[place[-1]] = value
        try:
            shown += made_page([read_source(save(path, changed))])[0].startswith("<!DOCTYPE html>")
        except ReportError as error:
            assert str(error).startswith(f"{path} ") and "\n" not in str(error)
    assert shown > 10


def test_the_command(ssdtrt, tmp_path):
    save(tmp_path / "a.json", report(eager(), engine()))
    done = ssdtrt("report", "a.json")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "report.html\n", "")
    made = json.loads(ssdtrt("report", "a.json", "--json", "-").stdout)
    assert {**made, "not_measured": len(made["not_measured"])} == {
        "schema": 1, "kind": "page", "file": "report.html", "reports": ["a.json"], "not_measured": 6
    }  # fmt: skip
    assert any(one.startswith("Agreement with FP32: none of the files has it.") for one in made["not_measured"])
    assert (tmp_path / "report.html").read_text().startswith('<!DOCTYPE html>\n<html lang="en">')
    for arguments, code, message in (
        ((), 2, "Missing argument 'REPORTS...'."),
        (("a.json", "-o", "a.json"), 2, "a.json is an input; give another path for --output."),
        (("a.json", "-o", "b.json"), 1, "b.json names no page; expected a name that ends with .html or .htm."),
        (("a.json", "-o", "no/b.html"), 1, "no/b.html cannot be written: there is no directory no. Give another path."),
        (("none.json",), 1, "none.json: No such file or directory"),
    ):
        done = ssdtrt("report", *arguments)
        assert (done.exit_code, done.stdout) == (code, "") and message in done.stderr


def test_the_library_refuses_no_report(tmp_path):
    with pytest.raises(ReportError, match="No report was given; expected at least one JSON file"):
        write_page([], tmp_path / "a.html")


def test_it_imports_no_torch(tmp_path, pictures):
    save(tmp_path / "a.json", report(eager(), engine()))
    entry = {"image": str(pictures("a.png")), "width": 200, "height": 100, "detections": []}
    save(tmp_path / "d.json", [entry])
    code = (
        "import sys; from ssdtrt.cli import main\n"
        "try: main('report a.json d.json'.split())\n"
        "finally: print(sorted({'torch', 'torchvision', 'matplotlib'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["report.html", "[]"], done.stderr
