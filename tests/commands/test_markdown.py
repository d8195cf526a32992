"""Markdown for GitHub: what a table's cell may hold, and a job's summary."""

import pytest

from ssdtrt.commands import markdown


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
    assert markdown.escape(text) == escaped


def test_table():
    assert markdown.table(("runner", "ms"), [("a|b", "1.5"), ("c", "-")]) == (
        "| runner | ms |\n| --- | --: |\n| a\\|b | 1.5 |\n| c | - |"
    )


def test_page():
    page = markdown.page("title", ["about_it", "how"], [(("a", "b"), [("1", "2")])], ["one", "two|three"])
    assert page == ("### title\n\nabout\\_it\n\nhow\n\n| a | b |\n| --- | --: |\n| 1 | 2 |\n\n- one\n- two\\|three\n")
    assert markdown.page("t", [], [(("a",), []), (("b",), [])], []) == "### t\n\n| a |\n| --- |\n\n| b |\n| --- |\n"


def test_summary_is_added_to(tmp_path, monkeypatch):
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    assert markdown.append_summary("one\n") is None and markdown.append_summary("two\n") is None
    assert path.read_text() == "before\none\n\ntwo\n\n"


def test_no_summary_outside_a_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    assert markdown.append_summary("one") is None
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "")
    assert markdown.append_summary("one") is None
    assert list(tmp_path.iterdir()) == []


def test_a_summary_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    assert markdown.append_summary("one") == f"the job's summary {tmp_path} cannot be written: Is a directory"
