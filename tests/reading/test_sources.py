"""Which pictures are meant by a file, a folder, a pattern and a list."""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ssdtrt.errors import ImageError
from ssdtrt.reading.sources import expand, pictures_below
from ssdtrt.system.child import child_environment
from ssdtrt.system.outputs import FolderRecord


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


def expanded(*arguments, stdin="", **options):
    """The paths as text, and what failed."""
    failures = []
    found = list(
        expand(arguments, io.BytesIO(stdin if isinstance(stdin, bytes) else stdin.encode()), failures, **options)
    )
    assert all(isinstance(path, Path) for path in found)
    return [str(path) for path in found], [str(failure) for failure in failures]


def test_a_file_is_itself(tree):
    assert expanded("in/b.jpg", Path("in/notes.txt")) == (["in/b.jpg", "in/notes.txt"], [])


def test_a_missing_file_passes_through(tree):
    assert expanded("no.jpg", "no/where.jpg") == (["no.jpg", "no/where.jpg"], [])


def test_an_address_is_itself_also_in_a_list(tree):
    (tree / "https:" / "host").mkdir(parents=True)
    given = ["https://host/[a]*.jpg?b#c", "in/b.jpg", "-", "https://host", "http://me:secret@host/in"]
    stdin = io.BytesIO(b"https://host//d.jpg\nin/b.jpg\nHTTPS://host/?e\n")
    found = list(expand(given, stdin, addresses=True, output="in"))
    expected = [given[0], Path("in/b.jpg"), "https://host//d.jpg", Path("in/b.jpg"), "HTTPS://host/?e", *given[3:]]
    assert found == expected
    with pytest.raises(ImageError, match=r"^http://host/in is an address; expected files here. Fetch it first.$"):
        list(expand(given[-1:], failures=[]))


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
    assert failures == [
        "empty holds no pictures (left out 1 file (.txt): no picture).",
        "in/*.gif matches no file.",
        "in/d[ef]ep/no* matches no file.",
    ]


# What a folder holds beside pictures


def noted(*arguments, **options):
    """The paths as text, and the notes."""
    notes = []
    found, failures = expanded(*arguments, note=notes.append, **options)
    assert failures == []
    return found, notes


def test_the_content_tells_where_the_name_does_not(tmp_path, monkeypatch):
    """Names without a suffix, with another program's, and with one that Pillow knows and cannot read."""
    monkeypatch.chdir(tmp_path)
    os.mkdir("in")
    for name, kind in (
        ("0001", "PNG"),
        ("shot.jpg_large", "JPEG"),
        ("x.0", "WEBP"),
        ("odd.mpo", "GIF"),
        ("a.jpg", "BMP"),
    ):
        Image.new("RGB", (3, 2)).save(f"in/{name}", format=kind)
    for name, content in (
        ("README", b"text"), ("b.mpg", b"\0\0\1\xba" + bytes(50)), ("c.h5", b"\x89HDF\r\n\x1a\n"), ("d.pdf", b"%PDF-1.4"),
        ("e.npy", b"\x93NUMPY"), ("f.txt", b"a"), ("g.txt", b"b"), ("h.svg", b"<svg/>"), (".DS_Store", b"x"), ("empty", b""),
    ):  # fmt: skip
        (tmp_path / "in" / name).write_bytes(content)
    found, notes = noted("in")
    assert found == ["in/0001", "in/a.jpg", "in/odd.mpo", "in/shot.jpg_large", "in/x.0"]
    assert notes == ["in: left out 9 files (no suffix, .txt, .mpg, .h5, .pdf, ...): no picture."]
    with open("in/b.mpg", "wb") as file:  # Named so, and a picture all the same: the name tells.
        Image.new("RGB", (3, 2)).save(file, format="PNG")
    assert noted("in")[0] == found


def test_what_was_left_out_and_why(tmp_path, monkeypatch):
    """In a process without pillow-heif."""
    monkeypatch.chdir(tmp_path)
    os.mkdir("in")
    for name, content in (
        ("a.jpg", b""), ("b.HEIC", b""), ("c.heic", b""), ("phone", b"\0\0\0\x1cftypheic" + bytes(9)),
        ("d.dng", b"II*\0"), ("e.CR2", b"II*\0"), ("labels.txt", b""),
    ):  # fmt: skip
        (tmp_path / "in" / name).write_bytes(content)
    os.symlink("nowhere", "in/broken")
    os.mkfifo("in/pipe")
    code = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from ssdtrt.reading.sources import expand\n"
        "print(list(map(str, expand(sys.argv[1:], sys.stdin, sys.argv, note=print))))\n"
        "print(sys.argv[-1])\n"
    )
    os.mkdir("all")
    shutil.copyfile("in/c.heic", "all/c.heic")
    command = [sys.executable, "-c", code, "in", "all"]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment())
    assert done.stdout.splitlines() == [
        "in: left out 2 files (.heic): pip install pillow-heif; 2 (no suffix): no regular file, or a broken link; "
        "2 (.dng, .cr2): cameras' raw files, to be developed to JPEG or TIFF; 1 (.txt): no picture; "
        "1 (no suffix): HEIC: pip install pillow-heif.",
        "['in/a.jpg']",
        "all holds no pictures (left out 1 file (.heic): pip install pillow-heif).",
    ], done.stderr


def test_heic_is_a_picture_with_pillow_heif(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.new("RGB", (64, 48))).save(tmp_path / "a.heic")
    shutil.copyfile(tmp_path / "a.heic", tmp_path / "b")
    assert noted(tmp_path) == ([str(tmp_path / "a.heic"), str(tmp_path / "b")], [])


def test_a_folder_that_cannot_be_read_is_named(tree, not_root):
    os.chmod("in/deep/er", 0)
    found, notes = noted("in/deep")
    os.chmod("in/deep/er", 0o700)
    assert (found, notes) == (["in/deep/a.bmp"], ["in/deep without in/deep/er: Permission denied."])


def test_links_are_followed_without_circles(tree):
    """To folders outside and to hidden ones; not to one that comes by itself, and back up."""
    os.makedirs("other/more")
    for name in ("other/o.jpg", "other/more/m.jpg", "in/.git/deep.jpg"):
        Path(name).touch()
    os.symlink("../../other", "in/deep/a_link")
    os.symlink("../other/more", "in/more")  # Once is enough.
    os.symlink("..", "in/Z/up")
    os.symlink("../in", "other/back")
    os.symlink("../..", "other/more/top")  # The whole tree, which holds `in` again.
    os.symlink("Z", "in/A_comes_by_itself")
    os.symlink(".git", "in/hidden")
    os.symlink("b.jpg", "in/linked.jpg")
    found = [path for path in noted("in")[0] if "/set" not in path]
    assert found == [
        "in/10.webp", "in/a.PNG", "in/b.jpg", "in/linked.jpg", "in/Z/e.jpg", "in/deep/a.bmp", "in/deep/a_link/o.jpg",
        "in/deep/er/c.jpeg", "in/hidden/d.jpg", "in/hidden/deep.jpg", "in/more/m.jpg", "in/more/top/odd1.jpg",
        "in/more/top/odd[1].jpg", "in/more/top/what?/f.jpg",
    ]  # fmt: skip


def test_a_pattern_gives_a_picture_once_where_a_link_leads_back(tree):
    os.symlink("..", "in/Z/up")
    assert expanded("in/**/*.jp*g") == (["in/Z/e.jpg", "in/b.jpg", "in/deep/er/c.jpeg"], [])


def test_output_folders_are_left_out_unless_named(tree):
    for name in ("in/out/a.jpg", "in/earlier/a.jpg", "in/earlier/detections.json"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    usual = ["in/10.webp", "in/a.PNG", "in/b.jpg", "in/Z/e.jpg", "in/deep/a.bmp", "in/deep/er/c.jpeg"]
    earlier = "results of an earlier run; name it to read it"
    others = f"in: left out 2 files (no suffix, .txt): no picture; the folder in/earlier: {earlier}"
    found, notes = noted("in", output="in/out/")
    assert found == usual and notes == [f"{others}; the folder in/out: {earlier}."]
    assert noted("in", output="elsewhere") == ([*usual, "in/out/a.jpg"], [f"{others}."])
    assert noted("in/out", "in/earlier", output="in/out")[0] == ["in/out/a.jpg", "in/earlier/a.jpg"]
    found, notes = noted("in/**/a.*", output="in/out")
    assert found == ["in/a.PNG", "in/deep/a.bmp"] and notes == [
        f"in/**/a.*: left out 1 file (.jpg): in in/earlier, which has {earlier}; "
        f"1 (.jpg): in in/out, which has {earlier}."
    ]
    assert noted("in/o*t/*.jpg", "in/out/*.jpg", output="other")[0] == ["in/out/a.jpg"] * 2
    assert noted("in/earlier/*.jpg", "in/out/*.jpg", output="in/out") == (["in/earlier/a.jpg", "in/out/a.jpg"], [])
    assert expanded("in/o*t/*.jpg", output="in/out")[1] == [
        f"in/o*t/*.jpg matches no file (left out 1 file (.jpg): in in/out, which has {earlier})."
    ]
    os.chdir("in/out")
    assert noted("*.jpg", output=".") == (["a.jpg"], [])
    os.chdir("..")
    assert noted("*/a.jpg", output=".")[0] == ["out/a.jpg"]


def test_what_an_earlier_run_drew_is_left_out_unless_named_as_a_file(tree):
    """By the record of the folder, and only where it is as it was written, or gone since: also crops below."""
    folder = Path("in/out")
    folder.mkdir()
    record = FolderRecord(folder)
    for name in ("drawn.jpg", "changed.jpg", "gone.jpg", "crops/cat/drawn.jpg"):
        record.write(name, b"drawn")
    record.close()
    Path("in/out/changed.jpg").write_bytes(b"the user's")
    Path("in/out/gone.jpg").unlink()
    Path("in/out/mine.jpg").touch()
    os.symlink("out/drawn.jpg", "in/link.jpg")
    mine = ["in/out/changed.jpg", "in/out/mine.jpg"]
    for output in (None, "in/out"):
        assert noted("in/out", output=output) == (mine, ["in/out: left out 2 files (.jpg): drawn by an earlier run."])
        assert noted("in/out/*.jpg", output=output) == (
            mine,
            ["in/out/*.jpg: left out 1 file (.jpg): drawn by an earlier run."],
        )
    files = ["in/out/drawn.jpg", "in/out/gone.jpg", "in/link.jpg"]
    assert noted(*files) == (files, [])
    assert noted(*files, "in/b.jpg", output="in/out") == (
        ["in/b.jpg"], ["in/out/drawn.jpg, ...: left out 3 files (.jpg): drawn by an earlier run."]
    )  # fmt: skip
    assert expanded(*files, output="in/out") == (
        [], ["in/out/drawn.jpg, ... is no picture (left out 3 files (.jpg): drawn by an earlier run)."]
    )  # fmt: skip
    assert expanded("-", stdin="\n".join([*files, "new.jpg"]), output="in/out") == (
        ["new.jpg"],
        [],
    )
