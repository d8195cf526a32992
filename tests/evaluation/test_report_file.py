"""Saved evaluations: read back whole, of both schemas, and refused in one sentence."""

import json

import pytest
from msgspec.structs import replace
from saved_evaluations import evaluation, first_schema

from conftest import ROOT
from ssdtrt.errors import ReportError
from ssdtrt.evaluation.report_file import is_evaluation, read

MAKE = "Make one with: ssdtrt evaluate --json FILE"


@pytest.fixture
def saved(tmp_path):
    """Writes JSON data or text: `saved(data)` -> path."""

    def save(data):
        path = tmp_path / "e.json"
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return path

    return save


def test_what_was_written_is_read_with_its_baselines(saved):
    baseline = evaluation(0.26, name="eager-fp32", classes=())
    made = evaluation(against=(baseline,), notes=("one",), failures=("two",))
    path = saved(made.document())
    assert is_evaluation(path) and read(path) == made


def test_the_first_schema_is_read(saved):
    made = evaluation()
    settings = replace(made.settings, faster_coco_eval=None, annotations_sha256=None)
    path = saved(first_schema(made.document()))
    assert is_evaluation(path) and read(path) == replace(made, settings=settings)
    recorded = read(ROOT / "benchmarks" / "reports" / "h200-accuracy.json")
    assert recorded.figures["AP"] == 0.7802038332502659 and len(recorded.classes) == 10
    assert [(one.name, one.figures["AP"]) for one in recorded.against] == [
        ("eager", 0.7800781429332471), ("eager-fp16", 0.7799742235326749)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "data, message",
    [
        ("text", "is not JSON (JSON is malformed: invalid character (byte 4)). "),
        ([1], "is no evaluation; expected an evaluation. "),
        ({}, "is no evaluation; expected an evaluation. "),
        ({"kind": "bench", "schema": 4}, "is a report of kind 'bench'; expected an evaluation. "),
        ({**evaluation().document(), "schema": 3}, "has the schema 3; this ssdtrt reads 1 to 2. Update ssdtrt."),
        ({**evaluation().document(), "schema": "2"}, "has the schema '2'; this ssdtrt reads 1 to 2. Update ssdtrt."),
        ({**evaluation().document(), "images": "2"}, "is damaged (Expected `int`, got `str` - at `$.images`). "),
        (
            {**evaluation().document(), "figures": {"AP": 1}},
            "is damaged (it lacks AP50, AP75, APs, APm, APl, AR1, AR10,",
        ),
    ],
)
def test_what_is_no_evaluation(saved, data, message):
    path = saved(data)
    with pytest.raises(ReportError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path} {message}") and str(caught.value).endswith((MAKE, "Update ssdtrt."))


def test_what_cannot_be_read_is_none(saved, tmp_path):
    assert not is_evaluation(tmp_path / "none.json") and not is_evaluation(tmp_path)
    assert not is_evaluation(saved("text")) and not is_evaluation(saved({"kind": "bench"}))


def test_a_report_that_a_shell_wrote_in_utf_16(saved):
    path = saved(evaluation(0.25).document())
    path.write_bytes(path.read_text().encode("utf-16"))
    assert is_evaluation(path) and read(path).figures["AP"] == 0.25
