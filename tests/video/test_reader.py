"""Frames decoded ahead: no more of them than the memory holds, and a reader that is left early ends."""

import threading
import time

import pytest
from video_files import video

from ssdtrt import config
from ssdtrt.errors import SsdtrtError, VideoError
from ssdtrt.video.reader import VideoReader


def test_frames_wait_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "VIDEO_BYTES", 3 * 64 * 48 * 3)
    path = video(tmp_path / "a.mp4", 12)
    with VideoReader(path) as reader:
        assert reader.take().number == 0
        deadline = time.monotonic() + 5
        while reader._queue.qsize() < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert reader._queue.qsize() == 3
        assert [frame.number for frame in reader.waiting(2)] == [1, 2]
        assert [frame.number for frame in iter(reader.take, None)] == list(range(3, 12))
        assert reader.take() is None and reader.failure is None
    with VideoReader(path) as reader:
        reader.take()
    assert not any(thread.name == "ssdtrt-video" for thread in threading.enumerate())


def test_what_cannot_be_opened_is_said_where_frames_are_taken(tmp_path):
    with VideoReader(tmp_path / "none.mp4") as reader, pytest.raises(VideoError, match="none.mp4 cannot be opened"):
        reader.take()
    for wrong in ({"every": 0}, {"timeout": 0.0}, {"timeout": float("nan")}):
        with pytest.raises(SsdtrtError, match="Expected every >= 1 and timeout > 0"):
            VideoReader("a.mp4", **wrong)


def test_a_fault_of_ours_is_raised_where_frames_are_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("ssdtrt.video.decoder.Decoder._pixels", lambda *_: 1 / 0)
    with VideoReader(video(tmp_path / "a.mp4", 2)) as reader, pytest.raises(ZeroDivisionError):
        reader.take()
