"""Tables, lists where there is no room, words where there is no number; Markdown, and a job's summary."""

import pytest

from ssdtrt.artifact.cache_entries import CacheEntry, CacheReport
from ssdtrt.artifact.parity_report import DetectionAgreement, Repeatability
from ssdtrt.artifact.request import BuildRequest
from ssdtrt.commands.text import tables
from ssdtrt.commands.text.tables import (
    append_summary,
    cache_text,
    fill,
    markdown_page,
    match_rate,
    milliseconds,
    repeatability_lines,
    shorten,
    stages_text,
    table,
)
from ssdtrt.reading.stage_times import STAGES, StageTime
from ssdtrt.system.versions import Machine, Versions


def test_table():
    assert table(("name", "n"), [("a", "1"), ("longer", "22")], 80) == "name     n\na        1\nlonger  22"


def test_table_that_just_fits():
    rows = [("ab", "1", "333")]
    assert table(("x", "yyyy", "z"), rows, 13) == "x   yyyy    z\nab     1  333"
    assert table(("x", "yyyy", "z"), rows, 12) == "ab\n  yyyy: 1\n  z: 333"


def test_narrow_table_is_stacked():
    text = table(("name", "n"), [("a" * 30, "1"), ("b", "2" * 30)], 40)
    assert text == f"{'a' * 30}\n  n: 1\n\nb\n  n: {'2' * 30}"


def test_table_without_rows():
    assert table(("name", "n"), [], 80) == "name  n"


def test_lines_are_filled_and_words_stay_whole():
    assert fill("one two three four five", 20) == "one two three four\nfive"
    assert fill("one two three four five", 5) == "one two three four\nfive"  # Narrower than any terminal.
    assert fill("one two three four five", 20, "  ") == "  one two three four\n  five"
    assert fill("one two three four five", 20, "  ", "    ") == "  one two three four\n    five"
    assert fill("one two three four five", 20, hanging="    ") == "one two three four\n    five"
    assert fill("a path/that/is/too/long/to/fit well-known", 20) == "a\npath/that/is/too/long/to/fit\nwell-known"


def test_names_are_shortened():
    assert [shorten("traffic light", width) for width in (20, 13, 12, 11)] == [
        "traffic light", "traffic light", "traffic l...", "traffic..."
    ]  # fmt: skip


@pytest.mark.parametrize("value, text", [(0.38812, "0.388"), (9.9994, "9.999"), (14.1234, "14.12"), (120.44, "120.4")])
def test_milliseconds(value, text):
    assert milliseconds(value) == text


@pytest.mark.parametrize(
    "counts, text", [((0, 0, 0), "none to compare"), ((5, 0, 0), "0.0 %"), ((3, 3, 2), "66.7 %"), ((40, 39, 38), "95.0 %")]
)  # fmt: skip
def test_a_match_rate_is_never_a_percentage_of_nothing(counts, text):
    assert match_rate(DetectionAgreement(*counts)) == text


def test_repeatability_lines():
    assert repeatability_lines(None, 80) == []
    found = Repeatability((1, 3), 1e-5, 1.5e-6, 3, 1, 0.0)
    assert repeatability_lines(found, 80) == [
        "in a batch of 1, 3 against alone: 1.5e-06 (bound 1.0e-05)",
        "run again: 0.0e+00 (bound 1e-06)",
    ]
    found = Repeatability((1, 8, 17, 32), 1.6e-2, 1.5e-3, 8, 4, 0.0, 2e-7)
    assert repeatability_lines(found, 80)[1] == "run again: 0.0e+00, as a CUDA graph 2.0e-07 (bound 1e-06)"
    assert max(map(len, "\n".join(repeatability_lines(found, 40)).splitlines())) <= 40


@pytest.mark.parametrize(
    "text, escaped",
    [
        ("b8.engine.ts FP16", "b8.engine.ts FP16"),
        ("a|b", r"a\|b"),
        (r"a\|b", r"a\\\|b"),
        ("_a_*b*`c`", r"\_a\_\*b\*\`c\`"),
        ("<b> &lt; [x](y) ~~z~~ $1$", r"\<b\> \&lt; \[x\](y) \~\~z\~\~ \$1\$"),
        ("two\nlines\tand  more", "two lines and more"),
    ],
)
def test_escape(text, escaped):
    assert tables._escape(text) == escaped


def test_markdown_table():
    assert tables._markdown_table(("runner", "ms"), [("a|b", "1.5"), ("c", "-")]) == (
        "| runner | ms |\n| --- | --: |\n| a\\|b | 1.5 |\n| c | - |"
    )


def test_markdown_page():
    page = markdown_page("title", ["about_it", "how"], [(("a", "b"), [("1", "2")])], ["one", "two|three"])
    assert page == ("### title\n\nabout\\_it\n\nhow\n\n| a | b |\n| --- | --: |\n| 1 | 2 |\n\n- one\n- two\\|three\n")
    assert markdown_page("t", [], [(("a",), []), (("b",), [])], []) == "### t\n\n| a |\n| --- |\n\n| b |\n| --- |\n"


def test_summary_is_added_to(tmp_path, monkeypatch):
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    assert append_summary("one\n") is None and append_summary("two\n") is None
    assert path.read_text() == "before\none\n\ntwo\n\n"


def test_no_summary_outside_a_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    assert append_summary("one") is None
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "")
    assert append_summary("one") is None
    assert list(tmp_path.iterdir()) == []


def test_a_summary_that_cannot_be_written_is_a_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    assert append_summary("one") == f"the job's summary {tmp_path} cannot be written: Is a directory"


# The cache

ENGINE = CacheEntry(
    key="0123456789abcdef" * 4,
    type="engine",
    bytes=45_310_000,
    last_used="2026-05-01T12:00:00.000000+00:00",
    precision="fp16",
    request=BuildRequest(weights="0" * 64, graph="1" * 64, preprocess="eval", backend="tensorrt", precision="fp16",
                         batch="8"),
    versions=Versions(torch="2.14.0+cu130"),
    machine=Machine(gpu="NVIDIA H200"),
)  # fmt: skip
TIMINGS = CacheEntry(
    key="timings-0123456789abcdef", type="timings", bytes=1_200_000, last_used="2026-04-30T12:00:00.000000+00:00"
)
CACHE = CacheReport(
    folder="/home/me/cache", limit=20_000_000_000, entries=(ENGINE, TIMINGS), checkpoint="/home/me/coco.pt"
)


def test_the_table_of_the_cache():
    assert cache_text(CACHE, 80).splitlines() == [
        "key                    what     size   last used          built with",
        "0123456789ab  FP16, batch 8  45.3 MB  2026-05-01  H200, torch 2.14.0",
        "timings-0123   timing cache   1.2 MB  2026-04-30                   -",
        "",
        "2 entries, 46.5 MB of at most 20.0 GB, in /home/me/cache",
        "COCO's checkpoint is in torch's cache, not counted: /home/me/coco.pt",
    ]
    narrow = cache_text(CACHE, 40).splitlines()
    assert max(map(len, narrow)) <= 40
    assert narrow[:3] == ["0123456789ab", "  what: FP16, batch 8", "  size: 45.3 MB"]


def stages(*shares):
    return tuple(StageTime(stage, 2 * share, share) for stage, share in zip(STAGES, shares))


def test_stages_and_the_one_that_holds_the_rest():
    assert stages_text(stages(0.25, 0.0, 0.5, 0.97, 0.125, 0.125), 80).splitlines() == [
        "stage    busy s  of the time",
        "read       0.50         25 %",
        "decode     0.00          0 %",
        "upload     1.00         50 %",
        "network    1.94         97 %",
        "results    0.25         12 %",
        "write      0.25         12 %",
        "The others wait for network.",
    ]


@pytest.mark.parametrize(
    "shares, said",
    [
        ((0.9, 0, 0.1, 0.85, 0.1, 0.1), "The others wait for read."),
        (
            (0.9, 0, 0.1, 0.85, 0.5, 0.45),
            "The others wait for results and write, which take turns; the longest is results.",
        ),
        (
            (0.1, 0, 0.1, 0.1, 0.0, 0.8),
            "The others wait for results and write, which take turns; the longest is write.",
        ),
        (
            (0.1, 0.6, 0.5, 0.7, 0.1, 0.3),
            "The others wait for upload, results and write, which take turns; the longest is upload.",
        ),
        ((0.1, 0.5, 0.05, 0.98, 0.1, 0.2), "The others wait for network."),
        (
            (0.4, 0, 0.5, 0.79, 0.3, 0.4),
            "No stage was busy all the time; the busiest is network. Start and end weigh in a short run.",
        ),
        ((0.0,) * 6, "No stage was busy all the time; the busiest is read. Start and end weigh in a short run."),
    ],
)
def test_which_stage_holds_the_rest(shares, said):
    assert stages_text(stages(*shares), 200).splitlines()[-1] == said


def test_stages_in_a_narrow_terminal():
    lines = stages_text(stages(0.4, 0.0, 0.5, 0.7, 0.3, 0.4), 40).splitlines()
    assert len(lines) == 10 and max(map(len, lines)) <= 40
    assert stages_text(stages(0.4, 0.0, 0.5, 0.7, 0.3, 0.4), 20).splitlines()[:3] == [
        "read",
        "  busy s: 0.80",
        "  of the time: 40 %",
    ]
