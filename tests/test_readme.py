"""The README and the documents: their commands run as they stand, their links lead somewhere, their figures are recorded."""

import ast
import contextlib
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import narrow
import pytest
import torch
from video_files import video

from conftest import ROOT, SAMPLES, script
from known import Few, known_file
from ssdtrt import config
from ssdtrt.artifact import metadata, quantization
from ssdtrt.artifact.cache_entries import CacheEntry, CacheReport, ClearReport
from ssdtrt.artifact.inspection import Inspection
from ssdtrt.artifact.parity_report import DetectionAgreement, OutputDistance, ParityReport, Repeatability
from ssdtrt.artifact.quantization import Agreement, ApRatio, Int8Verdict, LayerCost, Quantization
from ssdtrt.artifact.request import BuildRequest
from ssdtrt.benchmarking import report, report_file
from ssdtrt.benchmarking.compare import ComparedRow, CompareReport
from ssdtrt.clusters.records import BatchManifest, BatchReport, BatchSettings
from ssdtrt.detection.results import Detection, ImageDetections, PictureList
from ssdtrt.diagnosis.report import DoctorReport, Finding
from ssdtrt.evaluation.compare import ComparedFigure, EvalComparison
from ssdtrt.evaluation.report import ClassFigures, EvalReport, EvalSettings
from ssdtrt.model.source import WeightsSource
from ssdtrt.reporting.records import DetectReport, PageReport, PlotLine, PlotReport
from ssdtrt.run import RunReport
from ssdtrt.serving.service.records import EngineFile, ServeReport, ServiceError, ServiceInfo, ServiceOptions
from ssdtrt.serving.triton.report import CheckedPicture, TritonCheck, TritonLatency, TritonModel, TritonReport
from ssdtrt.system.digests import sha256_file
from ssdtrt.system.gpu_state import GpuState
from ssdtrt.system.versions import Machine, MeasuredOn, Versions
from ssdtrt.video.records import DetectVideoReport, FrameDetections, VideoRun

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
INT8 = (ROOT / "docs" / "int8.md").read_text(encoding="utf-8")
MARK = "<!-- executed by tests/test_readme.py -->\n"
RECORDED = ROOT / "benchmarks" / "reports"
LABELS = ("disc", "rectangle", "triangle", "ring", "cross")
PICTURES = 20


def blocks(text, language):
    """The marked code blocks of one language."""
    return [
        part[len(language) + 4 :].split("```")[0] for part in text.split(MARK)[1:] if part.startswith(f"```{language}")
    ]


def commands(text):
    """The marked shell commands, as lists of words."""
    return [shlex.split(line, comments=True) for block in blocks(text, "sh") for line in block.strip().splitlines()]


def shape(output):
    """A command's output without its numbers, the machine and the best object: what is the same everywhere."""
    output = re.sub(r"^(note: times vary .*|.* cores?, torch .*)\n", "", output, flags=re.M)
    output = output.replace(" before, taken from the cache", "")
    output = re.sub(r"^(\S+.jpg +\d+) .*(\d\.\d\d)$", r"\1 \2", output, flags=re.M)  # Whatever was found.
    return re.sub(r"\s+", " ", re.sub(r"[-+]?\d+(,\d{3})*(\.\d+)?(e-\d+)?", "0", output)).strip()


@pytest.fixture
def run(ssdtrt):
    """Run one command, and return what it writes to stdout; `bench` measures as little as it can."""

    def call(words):
        program, *arguments = words
        if program != "ssdtrt":
            done = subprocess.run(shlex.join(words) if ">" not in words else " ".join(words), shell=True, check=True)
            return done.stdout or ""
        if arguments[0] == "bench" and "--rounds" not in arguments:
            arguments += ["--rounds", "3", "--iterations", "1", "--warmup", "1"]
        old = tuple(map(int, torch.__version__.split(".")[:2])) < config.SAFE_WEIGHTS_ONLY
        if arguments[0] == "export" and "finetuned.pt" in arguments and old:
            arguments.append("--trust-weights")
        result = ssdtrt(*arguments)
        assert result.exit_code == 0, f"{shlex.join(words)}: {result.output}"
        return result.stdout

    return call


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with the picture that the README names."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(SAMPLES / "coffee.jpg", tmp_path / "street.jpg")
    return tmp_path


def files_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_quick_start_runs_and_prints_what_the_readme_shows(folder, run, kept_engines, fusing):
    lines = commands(README)
    assert len(lines) == 5
    shown = README.split("<!-- output -->\n```\n")[1].split("```")[0]
    printed = "".join(f"$ {shlex.join(line)}\n{run(line)}" for line in lines)
    assert shape(shown) == shape(printed), f"run the five commands and show what they print, such as\n{printed}"
    assert files_in(folder) == {
        "street.jpg", "ssd300.ts", "ssd300.engine.ts", "out/street.jpg", "out/detections.json",
        "out/.ssdtrt-written.jsonl",
    }  # fmt: skip


def run_python(block):
    """What a Python block prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block, "block", "exec"), {"__name__": "__main__"})
    return printed.getvalue().splitlines()


@pytest.mark.slow
def test_the_python_example_runs(folder, kept_engines):
    (block,) = blocks(README, "python")
    (first,) = run_python(block)
    speedup, distance = map(float, first.split())
    assert speedup > 0 and 0 < distance < 1e-4
    assert "street-boxes.jpg" in files_in(folder)


@pytest.fixture
def fine_tuned(model, tmp_path, monkeypatch):
    """A folder as the guide's reader has it: a checkpoint of five classes, their names, pictures, annotations."""
    monkeypatch.chdir(tmp_path)
    state = dict(model.state_dict())
    for i, boxes in enumerate((4, 6, 6, 6, 4, 4)):
        for key in (f"conf.{i}.weight", f"conf.{i}.bias"):
            state[key] = state[key][: (1 + len(LABELS)) * boxes].clone()
        state[f"conf.{i}.bias"][:boxes] += 6  # Fewer objects: the background is more likely.
    torch.save({"model": state, "epoch": 3}, tmp_path / "finetuned.pt")
    (tmp_path / "labels.txt").write_text("\n".join(LABELS) + "\n")
    scenes = script("scenes")
    for name, value in {"LABELS": LABELS, "VAL_WIDTHS": (200, 320), "VAL_HEIGHTS": (200, 320)}.items():
        monkeypatch.setattr(scenes, name, value)
    scenes.write_val(tmp_path, PICTURES, seed=7).rename(tmp_path / "val.json")
    (tmp_path / "images").rename(tmp_path / "val")
    return tmp_path


def assert_of_these_classes(found):
    """Every detection is of one of the five classes, inside its picture, and the best come first."""
    assert [Path(entry["image"]).name for entry in found] == [f"{i:06d}.jpg" for i in range(1, PICTURES + 1)]
    detections = [one for entry in found for one in entry["detections"]]
    assert len(detections) > 10 and len({one["label"] for one in detections}) > 1
    assert {(one["label_id"], one["label"]) for one in detections} <= set(enumerate(LABELS, start=1))
    for entry in found:
        scores = [one["score"] for one in entry["detections"]]
        assert scores == sorted(scores, reverse=True) and all(0.4 <= score <= 1 for score in scores)
        for one in entry["detections"]:
            left, top, right, bottom = one["box"]
            assert 0 <= left <= right <= entry["width"] and 0 <= top <= bottom <= entry["height"]


@pytest.mark.slow
def test_the_guide_runs(fine_tuned, run, kept_engines):
    shown = 0
    for block in GUIDE.split(MARK + "```sh\n")[1:]:
        printed = "".join(run(line) for line in commands(f"{MARK}```sh\n{block}"))
        output = re.match(r".*?```\n\n<!-- output -->\n```\n(.*?)```", block, flags=re.S)
        if output:
            one, other = (re.sub("|".join(LABELS), "class", shape(text)) for text in (output[1], printed))
            assert one == other, f"show what it prints, such as\n{printed}"
            shown += 1
    assert shown == 5
    assert {"finetuned.ts", "finetuned.engine.ts", "finetuned.detector.ts", "accuracy.json"} <= files_in(fine_tuned)
    described = metadata.read_metadata(fine_tuned / "finetuned.engine.ts").model
    assert (described.num_classes, described.labels) == (6, ("background", *LABELS))
    assert (described.weights.name, described.weights.trained) == ("finetuned.pt", True)
    assert described.weights.file_sha256 == sha256_file(fine_tuned / "finetuned.pt")
    today = report_file.read("today.json")
    assert [row.case for row in today.rows] == ["eager-fp32", "engine"] and today.rows[1].agreement.passed
    assert today.notes == ()  # The weights are from a file: nothing says untrained.
    assert_of_these_classes([json.loads(line) for line in Path("detections.jsonl").read_text().splitlines()])
    (block,) = blocks(GUIDE, "python")
    assert len(run_python(block)) == 2
    written = files_in(fine_tuned)
    assert {"boxes.png", "out/000011.jpg"} < written and any(name.startswith("out/crops/") for name in written)


@pytest.mark.slow
def test_the_int8_example_runs(monkeypatch, tmp_path):
    if not (SAMPLES / "scenes.npz").exists():
        pytest.skip("needs the weights of the package")
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(INT8, "python")
    with narrow.full_width():
        ranges, agreement = run_python(block)
    assert shape(INT8.split("<!-- output -->\n```\n")[1].split("```")[0]) == shape(f"{ranges}\n{agreement}")
    assert re.fullmatch(r"62 ranges, the input's is 2\.\d\d", ranges)  # White is (1 - 0.406) / 0.225 = 2.64 at most.
    found = re.fullmatch(r"(0\.\d{3}|1\.000) of (\d+) detections agree; scores change by (0\.\d{4})", agreement)
    assert float(found[1]) > 0.9 and int(found[2]) >= 10 and float(found[3]) < 0.05


def test_the_video_examples_run(run, tmp_path):
    known_file(tmp_path / "ssd300.engine.ts", network=Few)
    video(tmp_path / "clip.mp4", 12)
    text = (ROOT / "docs" / "video.md").read_text(encoding="utf-8")
    first, *others = commands(text)
    assert shape(run(first)) == shape(text.split("<!-- output -->\n```\n")[1].split("```")[0])
    for words in others:
        run(words)
    line = json.loads((tmp_path / "clip.jsonl").read_text().splitlines()[1])
    shown = json.loads(text.split("```json\n")[1].split("```")[0])
    assert {**line, "detections": []} == shown
    assert [json.loads(line)["frame"] for line in (tmp_path / "tenth.jsonl").read_text().splitlines()] == [0, 10]
    assert files_in(tmp_path / "results") == {"clip.mp4", "clip.jsonl"}
    (block,) = blocks(text, "python")
    assert run_python(block) == ["0 0.0 ['cat']", "10 0.333 ['cat']"]


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_the_picture_is_small():
    assert all(path.stat().st_size < 150_000 for path in (ROOT / "docs" / "images").iterdir())


def links(page):
    """The relative links of a page: (file, anchor)."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    found = re.findall(r'\]\(([^)\s]+)\)|src="([^"]+)"', text)
    return [(one or other).partition("#")[::2] for one, other in found if "://" not in (one or other)]


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for file, anchor in links(page):
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), file
        assert not anchor or anchor in anchors(target), f"{file}#{anchor}"


def named(text):
    """The files of this repository that a text names in backticks."""
    roots = "ssdtrt|tests|benchmarks|scripts|docs|examples|\\.github|\\.ci"
    return re.findall(rf"`((?:{roots})/[\w./-]+\.\w+)(?::[\w.]+)?`", text)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    missing = [name for name in named(text) if not (ROOT / name).exists()]
    missing += [name for name in re.findall(r"`(h200-[\w.]+|cpu-[\w.]+)`", text) if not (RECORDED / name).exists()]
    assert not missing


def test_every_document_is_linked_from_the_readme():
    linked = {file for file, _ in links(ROOT / "README.md")}
    assert linked >= {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} | {
        "CONTRIBUTING.md",
        "CHANGELOG.md",
    }


def messages_of_the_package():
    """The texts of the package, whose fields are `...`."""
    for path in (ROOT / "ssdtrt").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)


def test_messages_of_the_page_on_troubles_are_those_of_the_package():
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    cells = [row.split(" | ")[0] for row in text.splitlines() if row.startswith("| ")]
    shown = {message for cell in cells for message in re.findall(r"`([^`]*)`", cell) if len(message.split()) > 2}
    others = {"ssdtrt: command not found"}  # What a shell says.
    said = list(messages_of_the_package())
    assert len(shown) > 20 and others <= shown
    for message in shown - others:
        parts = message.replace("FP16", "...").split("...")
        assert any(all(part in one for part in parts) for one in said), message


DOCUMENTS = [
    (ParityReport, OutputDistance, DetectionAgreement, Repeatability),
    (report.BenchReport, report.BenchSettings, report.BenchRow, report.HostTimes, report.PartTime,
     report.BatchGpuState, GpuState, MeasuredOn, Versions),
    (CompareReport, ComparedRow), (EvalComparison, ComparedFigure), (EvalReport, EvalSettings, ClassFigures), (Inspection,), (DoctorReport, Finding),
    (CacheReport, CacheEntry), (ClearReport,), (RunReport,), (DetectReport,), (BatchReport,), (BatchManifest, BatchSettings), (PlotReport, PlotLine), (PageReport,),
    (TritonReport, TritonModel), (TritonCheck, CheckedPicture, TritonLatency),
    (ServeReport, EngineFile), (ServiceInfo, ServiceOptions), (ServiceError,),
    (PictureList,), (ImageDetections, Detection), (FrameDetections,), (DetectVideoReport, VideoRun), (quantization.CalibrationTable,),
]  # fmt: skip
RECORDED_IN_FILES = (
    metadata.ModuleMetadata, metadata.EngineMetadata, metadata.TensorSpec, metadata.ModelInfo, metadata.ExportInfo,
    metadata.ModuleFile, metadata.BuildInfo, BuildRequest, WeightsSource, Versions, Machine, Quantization, Int8Verdict, Agreement, ApRatio, LayerCost,
)  # fmt: skip


def undocumented(records, page):
    """The fields of records that are not named in backticks on a page."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    known = {part for name in re.findall(r"`([\w.\[\]]+)`", text) for part in re.findall(r"\w+", name)}
    fields = {name for record in records for name in (*record.derived, *record.__struct_fields__)}
    return fields - known


@pytest.mark.parametrize("records", DOCUMENTS, ids=lambda records: records[0].__name__)
def test_every_field_of_a_report_is_documented(records):
    assert undocumented(records, "reports.md") == set()


def test_every_field_of_the_metadata_is_documented():
    assert undocumented(RECORDED_IN_FILES, "files.md") == set()


def test_the_schemas_are_those_that_are_documented():
    text = (ROOT / "docs" / "reports.md").read_text(encoding="utf-8")
    for records in DOCUMENTS:
        kind, schema = records[0].kind, records[0].schema
        assert re.search(rf"^\| \[`{kind}`\]\(#[\w-]+\) \|[^|]*\| {schema} \|", text, flags=re.M), (kind, schema)
    assert f"schema {config.SCHEMA}" in (ROOT / "docs" / "files.md").read_text(encoding="utf-8")


def medians(file):
    """The medians of a recorded report, by case and batch size."""
    return {(row.case, row.batch_size): row.median_ms for row in report_file.read(RECORDED / file).rows}


def test_the_speed_table_is_what_the_reports_say():
    sizes = (1, 8, 32, 128)
    static, newer = medians("h200-static.json"), medians("h200-eager-torch2.11.json")
    default = medians("h200-static-front-end.json")
    expected = [
        [static["eager-fp32", size] for size in sizes],
        [newer["eager-fp32", size] for size in sizes],
        [static["eager-fp16-graph", size] for size in sizes],
        [newer["compile", size] for size in sizes],
        [default["engine", size] for size in sizes],
        [static["engine", size] for size in sizes],
    ]
    table = README.split("## Speed\n")[1].split("\n## ")[0]
    rows = [re.findall(r"\d+\.\d{3}(?= )", line) for line in table.splitlines() if line.startswith("|")]
    assert [row for row in rows if row] == [[f"{figure:.3f}" for figure in row] for row in expected]


def test_the_tables_are_what_the_reports_say():
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks" / "table.py"), "--check"], cwd=ROOT)
    assert done.returncode == 0, "run: python benchmarks/table.py"


def test_contributing_has_twenty_places_to_change_things():
    text = Path(ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [line for line in text.split("## To change")[1].splitlines() if line.startswith("| ") and "`" in line]
    assert len(rows) == 20
