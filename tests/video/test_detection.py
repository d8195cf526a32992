"""Detections of a video's frames through the Python function."""

import doctest
import shutil
import time

import pytest
from video_files import CHUNKED, chunked, sending, video

import ssdtrt
from known import CAT
from ssdtrt.detect import Detector
from ssdtrt.errors import VideoError


def test_frames_times_and_detections(known, tmp_path):
    detector = Detector(known, "cpu")
    detector.batch_size = 2
    path = video(tmp_path / "a.mkv", times=[0, 40, 140, 141, 1000])
    found = list(ssdtrt.detect_video(detector, path, every=2))
    assert [result.frame for result in found] == [0, 2, 4]
    assert [result.time for result in found] == pytest.approx([0, 0.14, 1], abs=5e-4)
    for frame, _, detections in found:
        assert detections.class_name[0] == "cat", frame  # Each second frame is red.
        assert detections.confidence[0] == pytest.approx(CAT, abs=1e-4) and len(detections) == 3
        assert detections.xyxy[0] == pytest.approx([4.16, 3.12, 59.84, 44.88], abs=0.01)
        assert detections.picture.size == (64, 48)


def test_the_example_of_the_documentation_runs(known, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(known, "ssd300.ts")
    video(tmp_path / "clip.mp4", 31, rate=30)
    (example,) = doctest.DocTestFinder(recurse=False).find(ssdtrt.detect_video, "detect_video")
    assert len(example.examples) == 2 and doctest.DocTestRunner().run(example).failed == 0


def test_all_that_came_is_yielded_before_the_error(known, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = video(tmp_path / "a.mkv", 60, rate=10).read_bytes()
    (tmp_path / "a.mkv").write_bytes(content[: len(content) // 3])
    seen = []
    with pytest.raises(VideoError, match=r"^a\.mkv broke off after frame \d+ .*it should have 6\.000 s\.$") as caught:
        for result in ssdtrt.detect_video(Detector(known, "cpu"), "a.mkv"):
            seen.append(result.frame)
    assert seen == list(range(len(seen))) and f"after frame {seen[-1]} (" in str(caught.value)


def test_frames_of_a_stream_do_not_wait_for_a_batch(known, tmp_path):
    """Forty frames come, and then nothing: results come although the next batch is not full."""
    content = video(tmp_path / "a.ts", 40, codec="mpeg2video").read_bytes()
    detector = Detector(known, "cpu")
    detector.batch_size = 64
    with sending(chunked(content), CHUNKED, "stall") as port:
        results = ssdtrt.detect_video(detector, f"http://127.0.0.1:{port}/a.ts", timeout=20)
        started = time.monotonic()
        assert [next(results).frame for _ in range(2)] == [0, 1]
        assert time.monotonic() - started < 15
        results.close()
