"""The annotated video: times, sizes, formats, and what is kept where a run breaks off. And lines of JSON."""

import io
import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from video_files import decoded

from known import BLUE, RED
from ssdtrt import config
from ssdtrt.detection.results import Detections
from ssdtrt.errors import ArtifactError
from ssdtrt.images.decode import load_image
from ssdtrt.video.decoder import VideoInfo
from ssdtrt.video.detection import FrameResult
from ssdtrt.video.sinks import FrameLinesSink, VideoSink

LABELS = config.COCO_LABELS


def result(number, seconds, size=(160, 120), color=RED):
    """A frame of one color, or of these pixels, with one cat, in a box whose edges are at a quarter and three quarters."""
    pixels = np.full((size[1], size[0], 3), color, np.uint8)
    box = np.array([[size[0] / 4, size[1] / 4, size[0] * 3 / 4, size[1] * 3 / 4]], np.float32)
    found = Detections("", *size, box, np.array([16]), np.array([0.5], np.float32), LABELS, lambda: load_image(pixels))
    return FrameResult(number, seconds, found)


def info(size=(160, 120), aspect=1):
    return VideoInfo(Fraction(30), *size, Fraction(aspect), None)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.webm"])
def test_frames_are_shown_when_the_sources_were(name, tmp_path):
    """With the colors of the source, and the box where it was found."""
    times = [0.0, 0.04, 0.14, 1.001, 4.321]
    with VideoSink(tmp_path / name, LABELS, info()) as sink:
        for number, seconds in enumerate(times):
            sink.write(result(number, seconds, color=(RED, BLUE)[number % 2]))
    frames = decoded(tmp_path / name)
    assert [seconds for seconds, _ in frames] == pytest.approx(times, abs=1e-3)
    assert frames[0][1].shape == (120, 160, 3)
    for number, (_, pixels) in enumerate(frames):
        assert pixels[10:20, 100:150].mean((0, 1)) == pytest.approx((RED, BLUE)[number % 2], abs=12), number
        assert np.abs(pixels[60, 39:42].astype(int) - pixels[60, 10].astype(int)).max() > 60  # The left edge.
    assert os.listdir(tmp_path) == [name]


def test_odd_sizes_times_that_go_back_and_frames_of_another_size(tmp_path):
    with VideoSink(tmp_path / "a.mp4", LABELS, info((161, 119), Fraction(4, 3)), every=3) as sink:
        for number, seconds in enumerate([0.0, 0.1, 0.05, 0.2]):
            sink.write(result(number, seconds, (161, 119) if number < 3 else (80, 60)))
    frames = decoded(tmp_path / "a.mp4")
    assert [pixels.shape for _, pixels in frames] == [(120, 162, 3)] * 4
    assert [seconds for seconds, _ in frames] == pytest.approx([0, 0.1, 0.1, 0.2], abs=1e-3)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.sample_aspect_ratio, stream.codec_context.name) == (Fraction(4, 3), "h264")


def test_an_odd_size_is_not_stretched(tmp_path):
    """Stripes of one pixel, which a stretch by one pixel would blur in the middle."""
    stripes = np.zeros((63, 161, 3), np.uint8)
    stripes[:, ::2] = 255
    none = np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, np.float32)
    with VideoSink(tmp_path / "a.mp4", LABELS, info((161, 63))) as sink:
        sink.write(FrameResult(0, 0.0, Detections("", 161, 63, *none, LABELS, lambda: load_image(stripes))))
    row = decoded(tmp_path / "a.mp4")[0][1][30, :, 1].astype(int)
    assert (row[:160:2] - row[1:160:2]).min() > 150


def test_frames_that_were_turned_have_the_other_pixel_aspect(tmp_path):
    with VideoSink(tmp_path / "a.mp4", LABELS, info((120, 160), Fraction(4, 3))) as sink:
        sink.write(result(0, 0.0))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(3, 4)


def test_labels_that_need_a_margin_are_left_out(tmp_path):
    with VideoSink(tmp_path / "a.mp4", LABELS, info((32, 32)), note="untrained") as sink:
        sink.write(result(0, 0.0, (32, 32)))
    assert decoded(tmp_path / "a.mp4")[0][1].shape == (32, 32, 3)


def test_without_libx264_it_is_mpeg_4(tmp_path, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    with VideoSink(tmp_path / "a.mp4", LABELS, info()) as sink:
        for number in range(3):
            sink.write(result(number, number / 30))
    assert [seconds for seconds, _ in decoded(tmp_path / "a.mp4")] == pytest.approx([0, 1 / 30, 2 / 30], abs=1e-3)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_was_done_is_kept_and_plays(error, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"before")
    with pytest.raises(error), VideoSink(tmp_path / "a.mp4", LABELS, info()) as sink:
        for number in range(20):
            sink.write(result(number, number / 30))
        assert (tmp_path / "a.mp4").read_bytes() == b"before"
        raise error
    assert len(decoded(tmp_path / "a.mp4")) == 20 and os.listdir(tmp_path) == ["a.mp4"]


def test_without_a_frame_nothing_is_written(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"before")
    with VideoSink(tmp_path / "a.mp4", LABELS, info()):
        pass
    assert (tmp_path / "a.mp4").read_bytes() == b"before" and os.listdir(tmp_path) == ["a.mp4"]


def test_what_cannot_be_written_or_drawn_is_said(tmp_path):
    with pytest.raises(ArtifactError, match=r"nowhere/a\.mp4 cannot be written: No such file or directory\."):
        VideoSink(tmp_path / "nowhere" / "a.mp4", LABELS, info()).__enter__()
    gone = FrameResult(
        0, 0.0, Detections("", 9, 9, np.empty((0, 4)), np.empty(0, int), np.empty(0), LABELS, lambda: 1 / 0)
    )
    with pytest.raises(ZeroDivisionError), VideoSink(tmp_path / "a.mp4", LABELS, info()) as sink:
        sink.write(gone)
    with pytest.raises(ArtifactError, match=r"a\.mp4 cannot be written: .*Give another with -o"):
        with VideoSink(tmp_path / "a.mp4", LABELS, info((1 << 15, 16))) as sink:
            sink.write(result(0, 0.0, (1 << 15, 16)))  # Larger than H.264 can be.
    assert os.listdir(tmp_path) == []


_IN_LITTLE_ROOM = """
import resource, sys, test_sinks
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
test_sinks.write_noise(sys.argv[1])
"""


def write_noise(path):
    """Writes frames of noise, and prints why that ends."""
    noise = np.random.default_rng(0)
    try:
        with VideoSink(path, LABELS, info()) as sink:
            for number in range(80):
                pixels = noise.integers(0, 255, (120, 160, 3), dtype=np.uint8)
                sink.write(result(number, number / 30, color=pixels))
    except ArtifactError as error:
        print(error)


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of POSIX")
@pytest.mark.parametrize("name, room", [("a.mp4", 0), ("a.mkv", 100_000)])
def test_a_full_disk_is_said(name, room, tmp_path):
    """In a process of its own, as FFmpeg crashes where it is called after its first error."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", _IN_LITTLE_ROOM, tmp_path / name, str(room)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (
        0, f"{tmp_path / name} cannot be written: File too large. Give another with -o.\n"
    ), done.stderr  # fmt: skip
    assert os.listdir(tmp_path) == []


def test_a_line_of_json_is_the_document_of_a_frame():
    target = io.StringIO()
    with FrameLinesSink(target, LABELS) as sink:
        sink.write("a.mp4", result(7, 1 / 3))
    assert json.loads(target.getvalue()) == {
        "schema": 1, "kind": "frame", "video": "a.mp4", "frame": 7, "time": 0.333, "width": 160, "height": 120,
        "detections": [{"label": "cat", "label_id": 16, "score": 0.5, "box": [40.0, 30.0, 120.0, 90.0]}],
    }  # fmt: skip
