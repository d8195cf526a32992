"""Which pictures are meant by a file, a folder, a pattern and a list."""

import io
import os
from pathlib import Path

import pytest

from ssdtrt.images.sources import expand, pictures_below


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Empty files, in a folder that is the current one."""
    for name in (
        "in/b.jpg", "in/a.PNG", "in/notes.txt", "in/.hidden.jpg", "in/10.webp", "in/none",
        "in/deep/er/c.jpeg", "in/deep/a.bmp", "in/.git/d.jpg", "in/Z/e.jpg",
        "odd[1].jpg", "odd1.jpg", "empty/readme.txt", "what?/f.jpg",
        "set [v1]/a.jpg", "set [v1]/deep/b.jpg", "set v/c.jpg", "sets/1/x [2]/d.jpg",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def expanded(*arguments, stdin=""):
    """The paths as text, and what failed."""
    failures = []
    found = list(expand(arguments, io.BytesIO(stdin if isinstance(stdin, bytes) else stdin.encode()), failures))
    assert all(isinstance(path, Path) for path in found)
    return [str(path) for path in found], [str(failure) for failure in failures]


def test_a_file_is_itself(tree):
    assert expanded("in/b.jpg", Path("in/notes.txt")) == (["in/b.jpg", "in/notes.txt"], [])


def test_a_missing_file_passes_through(tree):
    assert expanded("no.jpg", "no/where.jpg") == (["no.jpg", "no/where.jpg"], [])


def test_a_folder_is_the_pictures_in_it_and_below_by_name(tree):
    expected = ["in/10.webp", "in/a.PNG", "in/b.jpg", "in/Z/e.jpg", "in/deep/a.bmp", "in/deep/er/c.jpeg"]
    assert expanded("in") == (expected, [])
    assert expanded("in/") == (expected, [])
    assert [str(path) for path in pictures_below("in")] == expected


def test_a_folder_whose_own_name_is_hidden(tree):
    assert expanded("in/.git") == (["in/.git/d.jpg"], [])


def test_a_folder_whose_name_is_a_pattern(tree):
    assert expanded("what?") == (["what?/f.jpg"], [])


def test_a_pattern_is_the_files_that_match_by_name(tree):
    assert expanded("in/*.jpg") == (["in/b.jpg"], [])
    assert expanded("in/[ab].*") == (["in/a.PNG", "in/b.jpg"], [])
    assert expanded("odd?.jpg") == (["odd1.jpg"], [])


def test_two_stars_go_below(tree):
    assert expanded("in/**/*.jp*g") == (["in/Z/e.jpg", "in/b.jpg", "in/deep/er/c.jpeg"], [])


def test_folders_that_match_a_pattern_are_left_out(tree):
    assert expanded("in/*") == (["in/10.webp", "in/a.PNG", "in/b.jpg", "in/none", "in/notes.txt"], [])
    assert "in/deep" not in expanded("in/**")[0]


def test_a_file_whose_name_is_a_pattern_is_that_file(tree):
    assert expanded("odd[1].jpg") == (["odd[1].jpg"], [])
    os.remove("odd[1].jpg")
    assert expanded("odd[1].jpg") == (["odd1.jpg"], [])


def test_a_list_on_stdin(tree):
    text = "in/b.jpg\r\n\n  \r\nin/a b.jpg \nodd[1].jpg\nno.jpg"
    assert expanded("-", stdin=text) == (["in/b.jpg", "in/a b.jpg ", "odd[1].jpg", "no.jpg"], [])


@pytest.mark.parametrize("text", ["", "\n \r\n", "\ufeff", "\0"])
def test_a_list_that_names_no_picture_is_a_failure(text):
    assert expanded("-", stdin=text) == ([], ["- (the list on stdin) names no picture."])


@pytest.mark.parametrize("end", ["\n", "\0"])
def test_a_list_is_read_as_it_comes(end):
    """Each path is there before the next one is written, however the list is cut."""
    out, into = os.pipe()
    with open(out, "rb") as stdin, open(into, "wb", buffering=0) as writer:
        paths = expand(["-"], stdin, [])
        writer.write(f"a.jpg{end}b".encode())
        assert next(paths) == Path("a.jpg")
        writer.write(b".j\xc3")
        writer.write(b"\xa4" + end.encode())
        assert next(paths) == Path("b.jä")
        writer.write(b"last")
        writer.close()
        assert list(paths) == [Path("last")]


def test_a_list_of_find_print0():
    """A name may hold anything but a NUL."""
    assert expanded("-", stdin="in/b.jpg\0a\nb.jpg\0c\r\0 d \0") == (["in/b.jpg", "a\nb.jpg", "c\r", " d "], [])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-le", "utf-16-be"])
def test_a_byte_order_mark_is_no_part_of_a_path(encoding):
    mark = "" if encoding == "utf-8-sig" else "\ufeff"
    assert expanded("-", stdin=f"{mark}in/bä.jpg\r\nc.jpg\r\n".encode(encoding)) == (["in/bä.jpg", "c.jpg"], [])
    assert expanded("-", stdin="\ufeffa.jpg\n\ufeffb.jpg\n") == (["a.jpg", "b.jpg"], [])


def test_names_that_are_no_text(tree):
    found, _ = expanded("-", stdin=b"caf\xe9.jpg\nlast\xc3")
    assert [os.fsencode(path) for path in found] == [b"caf\xe9.jpg", b"last\xc3"]


def test_brackets_in_the_name_of_a_folder(tree):
    """They are taken as they are before they are taken as a pattern."""
    assert expanded("set [v1]/*.jpg") == (["set [v1]/a.jpg"], [])
    assert expanded("set [v1]/**/*.jpg") == (["set [v1]/a.jpg", "set [v1]/deep/b.jpg"], [])
    assert expanded(f"{tree}/set [v1]/[ab].jpg") == ([f"{tree}/set [v1]/a.jpg"], [])
    assert expanded("set [a-z]/*.jpg") == (["set v/c.jpg"], [])
    assert expanded("sets/*/x [2]/*.jpg") == (["sets/1/x [2]/d.jpg"], [])
    assert expanded("what?/*.jpg") == (["what?/f.jpg"], [])


def test_arguments_keep_their_order(tree):
    found, failures = expanded("odd1.jpg", "in/Z", "-", "in/deep/*.bmp", stdin="x.jpg\n")
    assert (found, failures) == (["odd1.jpg", "in/Z/e.jpg", "x.jpg", "in/deep/a.bmp"], [])


def test_a_folder_or_pattern_without_a_picture_is_a_failure(tree):
    found, failures = expanded("empty", "in/b.jpg", "in/*.gif", "in/d[ef]ep/no*")
    assert found == ["in/b.jpg"]
    assert failures == ["empty holds no pictures.", "in/*.gif matches no file.", "in/d[ef]ep/no* matches no file."]
