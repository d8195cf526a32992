"""benchmarks/service_plot.py, and the picture that it made for the documents."""

import json
import re
from xml.etree import ElementTree

import pytest

from conftest import ROOT, script

pytest.importorskip("matplotlib")
plot = script("service_plot")
KEPT = ROOT / "docs" / "service.svg"


def texts(path):
    """What is written in a picture, and its description."""
    text = path.read_text(encoding="utf-8")
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    return re.findall("<!--(.*?)-->", text), re.findall("<dc:description>(.*?)</dc:description>", text)


def test_the_picture_of_the_documents_is_that_of_the_recorded_reports(tmp_path):
    plot.main([str(tmp_path / "a.svg")])
    assert texts(tmp_path / "a.svg") == texts(KEPT)
    words, (figures,) = texts(KEPT)
    assert " p99, measured " in words and " clients " in words
    rows = json.loads((ROOT / "benchmarks" / "reports" / "cpu-service.json").read_text())["rows"]
    assert f"20 clients: 110.67 pictures/s, 179.75 205.72 {rows[2]['p99_ms']} ms; simulated 125.34" in figures


def test_other_reports_give_another_picture(tmp_path):
    measured = json.loads((ROOT / "benchmarks" / "reports" / "cpu-service.json").read_text())
    measured["rows"][2]["p99_ms"] = 1234.0
    (tmp_path / "in.json").write_text(json.dumps(measured))
    plot.main([str(tmp_path / "a.svg"), "--measured", str(tmp_path / "in.json")])
    assert texts(tmp_path / "a.svg")[1] != texts(KEPT)[1]
