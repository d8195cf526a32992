"""Processes that read pictures: the same pixels as in this process, in order, bounded, and gone at the end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from jpeg_files import exif_with, jpeg
from PIL import Image

from ssdtrt.errors import ImageError, SsdtrtError
from ssdtrt.images.decode import load_image
from ssdtrt.images.jpeg import EncodedJpeg
from ssdtrt.images.preprocess import resize_image
from ssdtrt.reading import reader_pool
from ssdtrt.reading.reader_pool import ReaderPool
from ssdtrt.reading.reader_process import slot_bytes
from ssdtrt.system.child import child_environment

pytestmark = pytest.mark.skipif(os.name != "posix", reason="files are handed to processes as on POSIX")


@pytest.fixture
def colors(tmp_path):
    """Twelve pictures, each of one gray and a size of its own."""
    paths = [tmp_path / f"{number:02}.png" for number in range(12)]
    for number, path in enumerate(paths):
        Image.new("RGB", (10 + number, 20), (number * 20,) * 3).save(path)
    return paths


@pytest.fixture
def readers():
    with ReaderPool(2, 4, 3, orient=True, preprocess="eval") as found:
        yield found


def given_back(readers, paths):
    """What is read, copied, each slot given back at once."""
    for read in readers.read(paths):
        if not isinstance(read, ImageError):
            read = read._replace(pixels=read.pixels.copy())
            readers.free_slot(read.slot)
        yield read


def test_pictures_come_in_order_with_their_sizes(readers, colors):
    found = list(given_back(readers, colors))
    assert [read.size for read in found] == [(10 + number, 20) for number in range(12)]
    for number, (_, pixels, *_) in enumerate(found):
        assert pixels.shape == (300, 300, 3) and pixels.dtype == np.uint8
        assert (pixels == number * 20).all()
    assert sorted(readers.free) == list(range(7))


def test_code_beside_the_pictures_does_not_run(colors, monkeypatch):
    for name in ("numpy", "PIL", "runpy", "ssdtrt"):
        colors[0].with_name(f"{name}.py").write_text("import os; os.write(2, b'code of a stranger'); os._exit(9)")
    monkeypatch.chdir(colors[0].parent)
    with ReaderPool(1, 2, 2, orient=True, preprocess="eval") as readers:
        assert [read.size for read in readers.read([colors[0].name])] == [(10, 20)]


def test_processes_end_where_not_all_can_be_started(monkeypatch):
    started, start = [], reader_pool._start

    def start_one(*arguments):
        if started:
            raise KeyboardInterrupt
        started.append(start(*arguments))
        return started[0]

    monkeypatch.setattr(reader_pool, "_start", start_one)
    with pytest.raises(KeyboardInterrupt):
        ReaderPool(2, 2, 2, orient=True, preprocess="eval")
    assert started[0].poll() is not None


def test_a_slot_is_its_callers_until_given_back(readers, colors):
    held = []
    for number, read in enumerate(readers.read(colors * 2)):
        held.append((number % 12 * 20, read))
        if len(held) == 4:  # Three are held when the next is asked for.
            value, oldest = held.pop(0)
            assert (oldest.pixels == value).all()
            readers.free_slot(oldest.slot)
    assert [(read.pixels == value).all() for value, read in held] == [True] * 3
    assert len({read.slot for _, read in held}) == 3 and len(readers.free) == 4


def test_whole_pictures_that_fit_are_left_as_they_are(photographs, tmp_path):
    """Too many pixels and too long a side are resized."""
    random = np.random.default_rng(0)
    sizes = [(640, 640), (641, 640), (1280, 300), (1281, 3), (1, 1), (300, 300)]
    paths = [tmp_path / f"{width}x{height}.png" for width, height in sizes]
    for path, (width, height) in zip(paths, sizes):
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    with Image.open(photographs[1]) as opened:
        opened.getexif()[0x0112] = 6  # turned by a quarter
        opened.save(tmp_path / "turned.jpg", exif=opened.getexif())
    paths.append(tmp_path / "turned.jpg")
    with ReaderPool(2, 4, 1, orient=True, preprocess="eval", whole=True) as readers:
        found = list(given_back(readers, paths))
    assert [read.size for read in found] == [*sizes, (300, 451)]
    for path, read in zip(paths, found):
        image = load_image(path)
        resized = image.size in [(641, 640), (1281, 3)]
        assert np.array_equal(read.pixels, resize_image(image) if resized else np.asarray(image))


def test_jpegs_for_a_gpu_stay_files(tmp_path):
    """One that is larger than its slot goes by its path; all others are as ever, with their notes and errors."""
    large = np.random.default_rng(0).integers(0, 256, (500, 700, 3), dtype=np.uint8)
    Image.fromarray(large).save(tmp_path / "large.jpg", quality=95, exif=exif_with(6))
    assert (tmp_path / "large.jpg").stat().st_size > slot_bytes(whole=False)
    contents = {"turned": jpeg(orientation=8), "upright": jpeg((90, 20)), "progressive": jpeg(progressive=True)}
    for name, content in contents.items():
        (tmp_path / f"{name}.jpg").write_bytes(content)
    Image.fromarray(np.full((20, 30), 2000, np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "cut.jpg").write_bytes(jpeg()[:300])
    names = ["turned.jpg", "upright.jpg", "large.jpg", "progressive.jpg", "deep.png", "cut.jpg", "none.jpg"]
    paths = [tmp_path / name for name in names]
    with ReaderPool(2, 4, 3, orient=True, preprocess="eval", jpegs=True) as readers:
        found = []
        for read in readers.read(paths * 2):
            if isinstance(read, ImageError):
                found.append(str(read))
                continue
            pixels = read.pixels
            if isinstance(pixels, EncodedJpeg):
                pixels = bytes(pixels.encoded()), pixels.stored, pixels.orientation, isinstance(pixels.data, str)
            found.append((read.size, pixels if isinstance(pixels, tuple) else pixels.shape, len(read.notes)))
            readers.free_slot(read.slot)
        seconds = readers.take_seconds()
        assert 0 < seconds < 60 and readers.take_seconds() == 0 and sorted(readers.free) == list(range(7))
    content = (tmp_path / "large.jpg").read_bytes()
    assert found[:5] == [
        ((48, 64), (contents["turned"], (64, 48), 8, False), 0),
        ((90, 20), (contents["upright"], (90, 20), 1, False), 0),
        ((500, 700), (content, (700, 500), 6, True), 0),
        ((64, 48), (300, 300, 3), 0),
        ((30, 20), (300, 300, 3), 1),
    ]
    assert found[5].startswith(f"{paths[5]} cannot be read as a picture (") and found[6] == f"{paths[6]}: no such file."
    assert found[7:] == found[:7]


def test_small_pictures_are_resized_unless_whole_ones_are_wanted(readers, colors):
    assert [read.pixels.shape for read in given_back(readers, colors[:1])] == [(300, 300, 3)]


def test_any_number_of_failures(readers, tmp_path):
    """More than there are slots, with names of every kind; the longest message is longer than a pipe's page."""
    names = ["no\nsuch\udcff.png", "\ud800.png", "", "\u20ac" * 2000, "a\0b", *map(str, range(20))]
    failures = list(readers.read([f"{tmp_path}/{name}" for name in names]))
    assert all(isinstance(failure, ImageError) for failure in failures)
    assert str(failures[0]) == f"{tmp_path}/no\nsuch\udcff.png: no such file."
    assert str(failures[1]).startswith(f"{tmp_path}/\ud800.png cannot be read as a picture (")
    assert str(failures[2]) == f"{tmp_path}/ is a directory; expected a picture."
    assert str(failures[3]).startswith(f"{tmp_path}/{names[3]} cannot be read as a picture (File name too long)")
    assert str(failures[4]).startswith(f"{tmp_path}/a\0b cannot be read")
    assert [str(failure) for failure in failures[5:]] == [f"{tmp_path}/{number}: no such file." for number in range(20)]
    assert sorted(readers.free) == list(range(7))


@pytest.mark.parametrize(("orient", "preprocess"), [(True, "eval"), (False, "hub")])
def test_pixels_are_those_of_this_process(photographs, tmp_path, orient, preprocess):
    turned = Image.open(photographs[0])
    exif = turned.getexif()
    exif[0x0112] = 6  # turned by a quarter
    turned.save(tmp_path / "turned.jpg", exif=exif)
    paths = [*photographs, tmp_path / "turned.jpg"]
    with ReaderPool(2, 8, 4, orient=orient, preprocess=preprocess) as readers:
        for path, (size, pixels, *_) in zip(paths, readers.read(paths)):
            image = load_image(path, orient=orient)
            assert size == image.size
            assert np.array_equal(pixels, resize_image(image, preprocess))


def test_what_cannot_be_read_comes_in_its_place(readers, colors, tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    paths = [colors[0], tmp_path / "text.png", tmp_path / "no\nsuch\udcff.png", colors[1]]
    good, text, missing, last = readers.read(paths)
    assert isinstance(text, ImageError) and str(text).startswith(f"{tmp_path / 'text.png'} cannot be read as a picture")
    assert isinstance(missing, ImageError) and str(missing).endswith("no such file.")
    assert (good.size, last.size) == ((10, 20), (11, 20)) and (last.pixels == 20).all()


def test_paths_are_taken_as_they_are_needed(readers, colors):
    taken = []
    stream = given_back(readers, (taken.append(path) or path for path in colors))
    for number in range(3):
        next(stream)
        assert len(taken) == 5 + number  # `depth` of them, and the one that made room


def test_no_pictures(readers):
    assert list(readers.read([])) == []


def test_leaving_ends_the_processes(colors):
    with ReaderPool(3, 6, 1, orient=True, preprocess="eval") as readers:
        next(readers.read(colors))
        assert all(process.poll() is None for process in readers.processes)
    assert [process.poll() for process in readers.processes] == [-signal.SIGKILL] * 3


@pytest.mark.parametrize("killed", [1, 2])
def test_a_process_that_was_killed_is_an_error(readers, colors, killed):
    stream = given_back(readers, colors * 3)
    next(stream)
    for process in readers.processes[:killed]:
        process.kill()
    with pytest.raises(
        SsdtrtError, match="A process that reads pictures ended with exit code -9; it may have run out of memory. Use"
    ):
        list(stream)


def test_they_end_with_the_one_that_started_them(colors):
    code = (
        "import os, sys\n"
        "from ssdtrt.reading.reader_pool import ReaderPool\n"
        "readers = ReaderPool(2, 4, 1, orient=True, preprocess='eval')\n"
        "next(readers.read(sys.argv[1:]))\n"
        "print(*[process.pid for process in readers.processes], flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", code, *map(str, colors)]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment())
    assert done.returncode == -signal.SIGKILL
    end = time.monotonic() + 20
    for number in map(int, done.stdout.split()):
        while alive(number):
            assert time.monotonic() < end, "a reader outlived its parent"
            time.sleep(0.05)


def alive(process):
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_reader_imports_no_torch():
    code = "import sys, ssdtrt.reading.reader_process; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=child_environment(), capture_output=True, text=True)
    assert done.stdout == "False True\n", done.stderr
