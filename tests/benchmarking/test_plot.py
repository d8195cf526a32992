"""Reports as a picture: which lines there are, how they can be told apart, and the errors where none can be drawn."""

import itertools
import math
import re
import sys
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure
from PIL import Image

from conftest import ROOT
from saved_reports import CPU, GPU, VERSIONS, accuracy, eager, engine, report, row
from ssdtrt import config
from ssdtrt.benchmarking import plot, report_file
from ssdtrt.errors import ReportError

BUILT = {"build_seconds": 100.0}
SWEEP = report(
    eager(128.0, 128), eager(8.0), engine(1.0, file="b1.ts", **BUILT), engine(10.0, 128, file="b128.ts", **BUILT),
    row("engine-plain", 0.5, 1, "b1.ts", **BUILT), row("compile", None),
)  # fmt: skip


def parsed(*data):
    return {f"folder/{'abc'[index]}.json": report_file.parse(one, "a.json") for index, one in enumerate(data)}


def drawn(*data):
    figure = Figure()
    found = parsed(*data)
    plot._draw(figure, list(found.values()), plot.lines_of(found))
    return figure


def points(*data):
    lines = plot.lines_of(parsed(*data))
    return {name: [(row.batch_size, row.median_ms) for row in rows] for name, rows in lines.items()}


def test_a_case_is_one_line_also_over_files_of_one_batch_size_each():
    assert points(SWEEP) == {
        "eager FP32": [(1, 8.0), (128, 128.0)],
        "engine FP16": [(1, 1.0), (128, 10.0)],
        "engine FP16, no CUDA graph": [(1, 0.5)],
    }


def test_files_that_share_a_batch_size_are_lines_of_their_own():
    data = report(eager(), engine(1.0, file="a.ts"), engine(2.0, file="b.ts"), engine(3.0, 8, file="b.ts"))
    assert points(data) == {"eager FP32": [(1, 8.0)], "a.ts FP16": [(1, 1.0)], "b.ts FP16": [(1, 2.0), (8, 3.0)]}


@pytest.mark.parametrize(
    "case, precision, built, name",
    [
        ("eager-tf32", "fp32", None, "eager TF32"),
        ("eager-fp16-graph", "fp16", None, "eager FP16, CUDA graph"),
        ("compile", "fp16", None, "torch.compile FP16"),
        ("torchscript", "fp32", None, "TorchScript FP32"),
        ("engine", "bf16", 3.0, "engine BF16"),
        ("engine", "fp32", None, "module FP32"),
        ("", "fp32", None, "mine FP32"),
    ],
)
def test_names(case, precision, built, name):
    one = row(case, 1.0, precision=precision, build_seconds=built, name=case or "mine")
    assert list(points(report(one))) == [name]


def test_lines_of_several_reports_say_what_sets_them_apart():
    data = report(eager())
    older = report(eager(), machine={**GPU, "versions": {**VERSIONS, "torch": "2.2.2+cu121", "tensorrt": "8.6"}})
    other = report(eager(), machine={**GPU, "gpu": "Other GPU"})
    assert list(points(data, older)) == ["eager FP32, torch 2.14.0", "eager FP32, torch 2.2.2"]
    assert list(points(data, other)) == ["eager FP32, Some GPU", "eager FP32, Other GPU"]
    assert list(points(data, data)) == ["eager FP32, a", "eager FP32, b"]
    assert list(points(data, older, older)) == ["eager FP32, a", "eager FP32, b", "eager FP32, c"]


def test_both_panels_show_every_line_on_logarithmic_axes():
    figure = drawn(SWEEP)
    latency, throughput = figure.axes
    for axes in (latency, throughput):
        assert (axes.get_xscale(), axes.get_yscale(), axes.get_xlabel()) == ("log", "log", "batch size, images")
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "128"]
    assert (latency.get_ylabel(), throughput.get_ylabel()) == (
        "median, ms (lower is better)", "images/s (higher is better)"
    )  # fmt: skip
    assert [list(line.get_ydata()) for line in latency.lines] == [[8.0, 128.0], [0.5], [1.0, 10.0]]
    assert [list(line.get_ydata()) for line in throughput.lines] == [[125.0, 1000.0], [2000.0], [1000.0, 12800.0]]
    assert latency.get_ylim() == pytest.approx((0.2, 200)) and throughput.get_ylim() == pytest.approx((100, 20_000))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "eager FP32",
        "engine FP16, no CUDA graph",
        "engine FP16",
    ]


def test_a_report_with_accuracy_has_a_third_panel_of_ap_over_throughput():
    """A point a row with its batch size, and a line at FP32's AP; what was not evaluated has no point there."""
    data = report(
        eager(accuracy=accuracy(0.78)), eager(128.0, 128, accuracy=accuracy(0.78)),
        engine(1.0, accuracy=accuracy(0.77)), engine(10.0, 128, accuracy=accuracy(0.77)), row("compile", 2.0),
    )  # fmt: skip
    figure = drawn(data)
    assert figure.get_size_inches()[1] > drawn(SWEEP).get_size_inches()[1] and len(drawn(SWEEP).axes) == 2
    _, _, axes = figure.axes
    *lines, fp32 = axes.lines
    found = [(list(line.get_xdata()), list(line.get_ydata())) for line in lines]
    assert found == [([125.0, 1000.0], [0.78, 0.78]), ([1000.0, 12800.0], [0.77, 0.77])]
    assert set(fp32.get_ydata()) == {0.78} and fp32.get_linestyle() == "--"
    colors = [line.get_color() for line in lines]
    assert colors == [line.get_color() for line in figure.axes[1].lines][1:] and len(figure.legends[0].get_texts()) == 3
    assert [(text.get_text(), text.xy) for text in axes.texts] == [
        ("1", (125.0, 0.78)), ("128", (1000.0, 0.78)), ("1", (1000.0, 0.77)), ("128", (12800.0, 0.77)),
        ("FP32\n0.780", (1, 0.78)),
    ]  # fmt: skip
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("images/s (higher is better)", "AP (higher is better)")
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    assert axes.get_xlim() == pytest.approx((100, 20_000)) and axes.get_ylim() == pytest.approx((0.7675, 0.7825))
    assert figure.get_suptitle().endswith(", logarithmic axes but for AP")


def test_the_title_names_machine_versions_and_clock():
    assert drawn(SWEEP).get_suptitle() == (
        "Some GPU, torch 2.14.0+cu130, Torch-TensorRT 2.14.0, TensorRT 11.1.0, driver 580.1\n"
        "SSD300, CUDA events, logarithmic axes"
    )


def test_lines_can_be_told_apart_without_color():
    cases = config.BENCH_CASES
    lines = drawn(report(*(row(case, 1.0 + index) for index, case in enumerate(cases)))).axes[0].lines
    assert len({line.get_marker() for line in lines}) == len(cases) == len(lines)
    assert len({line.get_linestyle() for line in lines}) > 1


def test_numbers_stand_on_an_axis_within_a_decade():
    axes = drawn(report(eager(310.0), row("compile", 246.0), machine=CPU)).axes[0]
    low, high = axes.get_ylim()
    assert (low, high) == pytest.approx((200, 400))
    assert [tick for tick in axes.get_yticks() if low <= tick <= high] == pytest.approx([200, 250, 300, 400])
    assert axes.yaxis.get_major_formatter()(12_000, 0) == "12,000"
    assert axes.yaxis.get_major_formatter()(0.5, 0) == "0.5"


@pytest.mark.parametrize(
    "low, high, ends", [(0.9, 11, (0.5, 20)), (1, 10, (1, 10)), (0.056, 0.15, (0.05, 0.2)), (99, 501, (50, 1000))]
)
def test_reach(low, high, ends):
    assert plot._reach(low, high, (1, 2, 5)) == pytest.approx(ends)


def test_batch_sizes_that_would_overlap_are_left_out():
    assert plot._with_room([1, 8, 32, 128]) == [1, 8, 32, 128]
    assert plot._with_room([4]) == [4]
    kept = plot._with_room([1, 2, 3, 4, 5, 6, 7, 8, 63, 64])
    assert kept == [1, 2, 3, 5, 8, 64]
    assert all(math.log(b / a) >= 0.07 * math.log(64) for a, b in itertools.pairwise(kept))


def test_files(tmp_path):
    folder = ROOT / "benchmarks" / "reports"
    found = {name: report_file.read(folder / f"{name}.json") for name in ("h200-static", "h200-eager-torch2.11")}
    assert plot.plot_reports(found, tmp_path / "a.PNG") == tmp_path / "a.PNG"
    with Image.open(tmp_path / "a.PNG") as picture:
        assert picture.format == "PNG" and picture.size == (1500, 780)
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 50
    for name in ("a.svg", "b.svg"):
        plot.plot_reports(found, tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert "<!-- engine FP16, torch 2.2.2 -->" in text and "<!-- TorchScript FP32, torch 2.11.0 -->" in text
    assert text == (tmp_path / "b.svg").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.PNG", "a.svg", "b.svg"]


def test_the_picture_of_the_documents_is_that_of_the_recorded_reports(tmp_path):
    folder = ROOT / "benchmarks" / "reports"
    found = {name: report_file.read(folder / f"{name}.json") for name in ("h200-static", "h200-eager-torch2.11")}
    made, kept = (
        re.findall("<!--(.*)-->", path.read_text())
        for path in (plot.plot_reports(found, tmp_path / "a.svg"), ROOT / "docs" / "speed.svg")
    )
    assert made == kept and "engine FP16, no CUDA graph, torch 2.2.2" in " ".join(made)


def test_what_cannot_be_drawn(tmp_path, monkeypatch):
    for path, message in (
        ("a.pdf", "a.pdf names no kind of picture; expected a name that ends with .png or .svg."),
        ("none/a.svg", "none/a.svg cannot be written: there is no directory none. Give another path."),
    ):
        with pytest.raises(ReportError) as caught:
            plot.check_plot(path)
        assert str(caught.value) == message
    with pytest.raises(ReportError, match="^The reports hold no measured row; expected at least one. Measure again.$"):
        plot.plot_reports(parsed(report(engine(None))), tmp_path / "a.svg")
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # As where it is not installed.
    with pytest.raises(ReportError, match=r"^Drawing needs matplotlib, which is not installed: pip install "):
        plot.plot_reports(parsed(SWEEP), tmp_path / "a.svg")
    assert list(tmp_path.iterdir()) == []
