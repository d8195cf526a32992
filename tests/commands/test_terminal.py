"""Progress, notes and hints, on a terminal and in a pipe."""

import io
import json
import shlex
import subprocess
import sys

import pytest

from ssdtrt.commands.terminal import Terminal, printable

CLEAR = "\r\x1b[K"


class Stream(io.StringIO):
    """A text stream that says whether it is a terminal."""

    def __init__(self, live):
        super().__init__()
        self.live = live

    def isatty(self):
        return self.live


@pytest.fixture
def speaking(monkeypatch):
    """A Terminal on fresh streams: `speaking(live, quiet)` -> (terminal, stdout, stderr)."""

    def start(live, quiet=False, columns=80):
        out, err = Stream(live), Stream(live)
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        monkeypatch.setenv("COLUMNS", str(columns))
        terminal = Terminal()
        terminal.begin(quiet)
        return terminal, out, err

    return start


def test_live_progress_is_written_over(speaking):
    terminal, out, err = speaking(live=True)
    terminal.progress("building, 1 s")
    terminal.progress("building, 2 s")
    assert err.getvalue() == f"{CLEAR}building, 1 s{CLEAR}building, 2 s"
    terminal.done()
    assert err.getvalue().endswith(f"2 s{CLEAR}")
    assert out.getvalue() == ""


def test_live_progress_never_wraps(speaking):
    terminal, _, err = speaking(live=True, columns=12)
    terminal.progress("building the engine, 1 s")
    assert err.getvalue() == f"{CLEAR}building th"


def test_done_clears_once(speaking):
    terminal, _, err = speaking(live=True)
    terminal.done()
    assert err.getvalue() == ""
    terminal.progress("loading")
    terminal.done()
    terminal.done()
    assert err.getvalue() == f"{CLEAR}loading{CLEAR}"


def test_live_note_and_hint_clear_the_line_first(speaking):
    terminal, out, err = speaking(live=True)
    terminal.progress("loading")
    terminal.note("untrained")
    terminal.hint("bench", "my engine.ts")
    assert err.getvalue() == f"{CLEAR}loading{CLEAR}note: untrained\nnext: ssdtrt bench 'my engine.ts'\n"
    assert out.getvalue() == ""


def test_what_a_terminal_would_act_on_is_written_out(speaking):
    assert printable("a\nb\t\x1b[2J\u202e\ud800", but="\t") == "a\\nb\t\\x1b[2J\\u202e\\ud800"
    assert printable("\u732b at\u202f10\xa0h") == "\u732b at\u202f10\xa0h"  # As in the names of screenshots.
    terminal, _, err = speaking(live=True)
    terminal.progress("reading a\x1b[2J.mp4")
    terminal.note("b\n.jpg is")
    terminal.hint("verify", "c\x1b[2J.jpg")
    assert err.getvalue() == (
        f"{CLEAR}reading a\\x1b[2J.mp4{CLEAR}note: b\\n.jpg is\nnext: ssdtrt verify 'c\\x1b[2J.jpg'\n"
    )


def test_piped_progress_is_one_line_a_step(speaking):
    terminal, out, err = speaking(live=False)
    for text in (
        "building, 0 s",
        "building, 1 s",
        "measuring batch 1",
        "measuring batch 1 [##..] 1 of 2 rounds",
        "building, 3 s",
    ):
        terminal.progress(text)
    terminal.done()
    assert err.getvalue() == "building, 0 s\nmeasuring batch 1\nbuilding, 3 s\n"
    assert out.getvalue() == ""


def test_piped_progress_knows_a_step_up_to_a_bracket(speaking):
    terminal, _, err = speaking(live=False)
    terminal.progress("fetching [1 of 90 MB]")
    terminal.progress("fetching [2 of 90 MB]")
    assert err.getvalue() == "fetching [1 of 90 MB]\n"


def test_piped_progress_speaks_again_after_a_while(speaking, monkeypatch):
    terminal, _, err = speaking(live=False)
    monkeypatch.setattr("ssdtrt.commands.terminal._INTERVAL", -1.0)
    terminal.progress("building, 0 s")
    terminal.progress("building, 20 s")
    assert err.getvalue() == "building, 0 s\nbuilding, 20 s\n"


def test_piped_note_is_plain(speaking):
    terminal, out, err = speaking(live=False)
    terminal.progress("loading")
    terminal.note("untrained")
    assert err.getvalue() == "loading\nnote: untrained\n"
    assert "\x1b" not in err.getvalue() and out.getvalue() == ""


def test_no_hint_in_a_pipe(speaking):
    terminal, out, err = speaking(live=False)
    terminal.hint("bench", "my engine.ts")
    assert (out.getvalue(), err.getvalue()) == ("", "")


def test_hint_looks_at_stdout(speaking, monkeypatch):
    terminal, _, err = speaking(live=True)
    monkeypatch.setattr(sys, "stdout", Stream(live=False))
    terminal.hint("bench", "my engine.ts")
    assert err.getvalue() == ""


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_stream_that_the_caller_closed_is_no_reason_to_fail(redirection, known, tmp_path):
    arguments = f"inspect {shlex.quote(str(known))} --json {shlex.quote(str(tmp_path / 'a.json'))}"
    command = f"exec {shlex.quote(sys.executable)} -m ssdtrt {arguments} {redirection}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "a.json").read_text())["metadata"]["kind"]


@pytest.mark.parametrize("live", [True, False])
def test_quiet(speaking, live):
    terminal, out, err = speaking(live, quiet=True)
    terminal.progress("loading")
    terminal.hint("bench", "my engine.ts")
    terminal.done()
    assert (out.getvalue(), err.getvalue()) == ("", "")
    terminal.note("untrained")
    assert err.getvalue() == "note: untrained\n"


def test_begin_starts_afresh(speaking, monkeypatch):
    terminal, _, first = speaking(live=False)
    terminal.progress("loading")
    second = Stream(live=False)
    monkeypatch.setattr(sys, "stderr", second)
    terminal.begin(quiet=False)
    terminal.progress("loading")
    assert first.getvalue() == second.getvalue() == "loading\n"


def test_begin_looks_at_the_stream_again(speaking, monkeypatch):
    terminal, _, _ = speaking(live=False)
    monkeypatch.setattr(sys, "stderr", Stream(live=True))
    terminal.begin(quiet=False)
    terminal.progress("loading")
    assert sys.stderr.getvalue() == f"{CLEAR}loading"


def test_width(speaking):
    assert speaking(live=True, columns=40)[0].width() == 40
    assert speaking(live=False, columns=40)[0].width() == 10_000
