"""Processes that read pictures: the same pixels as in this process, in order, bounded, and gone at the end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssdtrt.errors import ImageError, SsdtrtError
from ssdtrt.host import child_environment
from ssdtrt.pictures import load_image, squeeze
from ssdtrt.readers import Readers

pytestmark = pytest.mark.skipif(os.name != "posix", reason="files are handed to processes as on POSIX")


@pytest.fixture
def colours(tmp_path):
    """Twelve pictures, each of one grey and a size of its own."""
    paths = [tmp_path / f"{number:02}.png" for number in range(12)]
    for number, path in enumerate(paths):
        Image.new("RGB", (10 + number, 20), (number * 20,) * 3).save(path)
    return paths


@pytest.fixture
def readers():
    with Readers(2, 4, orient=True, preprocess="eval") as found:
        yield found


def test_pictures_come_in_order_with_their_sizes(readers, colours):
    found = list(readers.read(colours))
    assert [size for size, _ in found] == [(10 + number, 20) for number in range(12)]
    for number, (_, pixels) in enumerate(found):  # Later pictures went through the same slots.
        assert pixels.shape == (300, 300, 3) and pixels.dtype == np.uint8
        assert (pixels == number * 20).all()


@pytest.mark.parametrize(("orient", "preprocess"), [(True, "eval"), (False, "hub")])
def test_pixels_are_those_of_this_process(photographs, tmp_path, orient, preprocess):
    turned = Image.open(photographs[0])
    exif = turned.getexif()
    exif[0x0112] = 6  # turned by a quarter
    turned.save(tmp_path / "turned.jpg", exif=exif)
    paths = [*photographs, tmp_path / "turned.jpg"]
    with Readers(2, 8, orient=orient, preprocess=preprocess) as readers:
        for path, (size, pixels) in zip(paths, readers.read(paths)):
            image = load_image(path, orient=orient)
            assert size == image.size
            assert np.array_equal(pixels, squeeze(image, preprocess))


def test_what_cannot_be_read_comes_in_its_place(readers, colours, tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    paths = [colours[0], tmp_path / "text.png", tmp_path / "no\nsuch\udcff.png", colours[1]]
    good, text, missing, last = readers.read(paths)
    assert isinstance(text, ImageError) and str(text).startswith(f"{tmp_path / 'text.png'} cannot be read as a picture")
    assert isinstance(missing, ImageError) and str(missing).endswith("no such file.")
    assert (good[0], last[0]) == ((10, 20), (11, 20)) and (last[1] == 20).all()


def test_paths_are_taken_as_they_are_needed(readers, colours):
    taken = []
    stream = readers.read(taken.append(path) or path for path in colours)
    for number in range(3):
        next(stream)
        assert len(taken) == 5 + number  # `depth` of them, and the one that made room


def test_no_pictures(readers):
    assert list(readers.read([])) == []


def test_leaving_ends_the_processes(colours):
    with Readers(3, 6, orient=True, preprocess="eval") as readers:
        next(readers.read(colours))
        assert all(process.poll() is None for process in readers.processes)
    assert [process.poll() for process in readers.processes] == [-signal.SIGKILL] * 3


def test_a_process_that_was_killed_is_an_error(readers, colours):
    stream = readers.read(colours)
    next(stream)
    for process in readers.processes:
        process.kill()
    with pytest.raises(SsdtrtError, match="A process that reads pictures ended with -9"):
        list(stream)


def test_they_end_with_the_one_that_started_them(colours):
    code = (
        "import os, sys\n"
        "from ssdtrt.readers import Readers\n"
        "readers = Readers(2, 4, orient=True, preprocess='eval')\n"
        "next(readers.read(sys.argv[1:]))\n"
        "print(*[process.pid for process in readers.processes], flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", code, *map(str, colours)]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment())
    assert done.returncode == -signal.SIGKILL
    end = time.monotonic() + 20
    for number in map(int, done.stdout.split()):
        while alive(number):
            assert time.monotonic() < end, "a reader outlived its parent"
            time.sleep(0.05)


def alive(process):
    """Whether a process is there and no zombie that nobody waits for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_reader_imports_no_torch():
    code = "import sys, ssdtrt.reading; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=child_environment(), capture_output=True, text=True)
    assert done.stdout == "False True\n", done.stderr
