"""How a report is shown and written, and which files are refused for it."""

import json
import os

import click
import pytest

from ssdtrt.artifact.parity_report import DetectionAgreement, OutputDistance, ParityReport
from ssdtrt.commands.options import check_apart, check_json, end_with, show
from ssdtrt.errors import ArtifactError

REPORT = ParityReport(
    "fp16", 8, (1, 8), 2e-2, 1e-4, (OutputDistance("loc", None, float("inf"), False),), DetectionAgreement(0, 0)
)


def text(report, width):
    return f"text of {report.images} images"


def markdown(report):
    return f"# {report.images}\n"


def strict(written):
    """JSON as the standard has it: NaN and Infinity are refused."""
    return json.loads(written, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_a_report_is_shown_as_text_and_written_as_it_is_asked_for(capsys, tmp_path):
    show(REPORT, None, text)
    assert capsys.readouterr().out == "text of 8 images\n"
    show(REPORT, str(tmp_path / "a.json"), text, str(tmp_path / "a.md"), markdown)
    assert capsys.readouterr().out == "text of 8 images\n"
    assert (tmp_path / "a.md").read_text() == "# 8\n"
    found = strict((tmp_path / "a.json").read_text())
    assert found == REPORT.document() and list(found)[:2] == ["schema", "kind"]
    assert (found["schema"], found["kind"], found["passed"]) == (2, "parity", False)
    assert found["outputs"][0]["relative_l2"] is found["outputs"][0]["max_abs"] is None


def test_a_dash_puts_one_form_in_the_place_of_the_text(capsys):
    show(REPORT, "-", text)
    assert strict(capsys.readouterr().out) == REPORT.document()
    show(REPORT, None, text, "-", markdown)
    assert capsys.readouterr().out == "# 8\n"


def test_markdown_goes_to_the_summary_of_a_job(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    show(REPORT, None, text, None, markdown)
    assert (tmp_path / "summary.md").read_text().startswith("# 8\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "none" / "summary.md"))
    show(REPORT, None, text, None, markdown)
    assert "summary" in capsys.readouterr().err


def test_failures_are_a_line_each_and_exit_code_1(capsys):
    end_with([])
    end_with(iter(()))
    with pytest.raises(SystemExit) as caught:
        end_with(ValueError(word) for word in ("one", "two"))
    assert caught.value.code == 1 and capsys.readouterr().err == "Error: one\nError: two\n"


def test_files_that_a_report_may_replace(tmp_path):
    (tmp_path / "old.json").write_text("{}")
    check_json(None, "-", str(tmp_path / "new.json"), str(tmp_path / "old.json"), os.devnull)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\0")
    with pytest.raises(click.UsageError, match="exists and is not a text file; give another path for the report"):
        check_json(str(tmp_path / "picture.png"))
    with pytest.raises(ArtifactError, match="there is no directory"):
        check_json(str(tmp_path / "none" / "new.json"))


def test_one_file_has_one_purpose(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_apart({"-o": None, "--json": "a", "--coco": "b", "--jsonl": "-"}, ["c", None])
    for outputs, inputs, message in (
        ({"--json": "-", "--coco": "-"}, [], "Only one of --json and --coco can go to stdout"),
        ({"--json": "a", "--coco": "./a"}, [], "Only one of --json and --coco can be written to ./a"),
        ({"--json": "a"}, [tmp_path / "a"], "a is an input; give another path for --json"),
    ):
        with pytest.raises(click.UsageError, match=message):
            check_apart(outputs, inputs)
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(click.UsageError, match="link is an input"):
        check_apart({"--json": "link"}, ["a"])
