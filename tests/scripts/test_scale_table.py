"""benchmarks/scale_table.py: the page holds its tables, and they follow from the reports and from what is assumed."""

import json
import re

import pytest

from conftest import ROOT, script

scale = script("scale_table")
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


def cells(table):
    """The rows of a table, without its head."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_page_holds_the_tables():
    assert scale.main(["--check"]) == 0, "run: python benchmarks/scale_table.py"
    assert re.findall(r"<!-- table (\w+):", PAGE) == list(scale.TABLES) and len(PAGE.splitlines()) <= 150


def test_a_page_with_other_figures_is_found_and_written(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "PAGE", tmp_path / "scale.md")
    other = re.sub(r"(\| FP16, decoded on the GPU \| 16 \| [\d,]+ \|) [\d.]+ \|", r"\1 9.99 |", PAGE)
    assert other.count("9.99") == 1
    scale.PAGE.write_text(other, encoding="utf-8")
    assert scale.main(["--check"]) == 1
    assert scale.main([]) == 0 and scale.PAGE.read_text(encoding="utf-8") == PAGE


def test_gpus_and_money_of_a_billion_a_day(monkeypatch):
    """1e9 / 86,400 s are 11,574 a second, of which a GPU with 5,000 does 2.31 times less; 200 s of it are a million."""
    monkeypatch.setattr(scale, "runs", lambda: [scale.Run("one", 4, 5000.0)])
    (row,) = cells(scale.fleet(scale.Assumed(price=3.6)))
    assert row == ["one", "4", "5,000", "2.31", "5", "20", "0.056", "$0.20", "$0.40"]
    (row,) = cells(scale.fleet(scale.Assumed(pictures=864e6, peak=1.0, price=7.2)))
    assert row[3:5] == ["2.00", "2"] and row[7:] == ["$0.40", "$0.40"]


def test_bytes_and_requests():
    found = {row[0].partition(",")[0]: row[1:] for row in cells(scale.data(scale.Assumed(picture_bytes=1e6)))}
    assert found["network in"] == ["92.6 Gbit/s", "185.2 Gbit/s"] and found["prefixes"] == ["3", "5"]
    assert found["pictures"][0] == "1,000 TB a day" and found["the command's list of a day"][0] == "200 GB of memory"
    line = json.loads((ROOT / "benchmarks" / "reports" / "cpu-row-bytes.json").read_text())["rows"][0]
    assert found["results as Parquet"][0] == f"{line['parquet_row_bytes']:.0f} GB a day"


def test_what_is_needed_over_what_there_is(monkeypatch):
    monkeypatch.setattr(scale, "runs", lambda: [scale.Run("one", 4, 5500.0)])
    rows = cells(scale.limits(scale.Assumed(picture_bytes=1e5, block=100)))
    assert [row[0] for row in rows] == ["1", "8", "100", "1,000"]
    # 5,500 x 0.1 MB are 4.4 Gbit/s; 55 files a second of 3,500; 5,500 x 3,600 x 200 bytes are 3.96 GB of 64.
    assert rows[0][1:3] == ["5,500", "50.51 h"] and rows[0][4:] == ["0.04", "1.00", "0.02", "0.06"]
    assert rows[2][4:] == ["0.35", "**100.00**", "1.57", "6.19"]
    assert float(rows[0][3].strip("*")) == pytest.approx(11_558.9 / 5500, abs=0.01)


def test_other_assumptions_are_printed_and_not_written(capsys):
    run = json.loads((ROOT / "benchmarks" / "reports" / "h200-files-gpu.json").read_text())["runs"][0]
    dollars = f"${30 * 1e6 / 3600 / run['images_per_second']:.2f}"
    assert scale.main(["--price", "30"]) == 0
    assert dollars in capsys.readouterr().out and dollars not in PAGE
