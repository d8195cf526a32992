"""Which arguments are videos."""

import pytest
from PIL import Image
from video_files import video

from ssdtrt.errors import VideoError
from ssdtrt.video.sources import is_video, shown_name, videos_among


@pytest.mark.parametrize(
    "argument", ["clip.mp4", "a/B.MKV", "x.webm", "rtsp://camera/1", "RTSPS://c", "udp://@:5000", "srt://h:1", "rtmp://h/live",
                 "http://h/clip.mp4?token=1", "http://[bad/clip.mp4", "https://h/a/index.m3u8", "in/*.mov", "none.ts"]
)  # fmt: skip
def test_videos(argument):
    assert is_video(argument)


@pytest.mark.parametrize(
    "argument", ["a.jpg", "https://h/a.jpg", "https://h/show?file=clip.mp4", "http://h/", "http://[bad/a.jpg", "in", "-", "a.gif", "x.jpg://y", "."]
)  # fmt: skip
def test_pictures_folders_and_addresses_that_may_be_pictures(argument):
    assert not is_video(argument)


def test_files_are_known_by_their_first_bytes(known, tmp_path):
    """Each container without its suffix; a GIF, a picture, a saved module and a HEIC file are none."""
    for suffix, codec in ((".mp4", "mpeg4"), (".mkv", "mpeg4"), (".avi", "mpeg4"), (".ts", "mpeg2video"), (".mpg", "mpeg2video"),
                          (".flv", "flv")):  # fmt: skip
        path = video(tmp_path / f"clip{suffix}", 2, codec=codec)
        assert is_video(path) and is_video(path.rename(tmp_path / f"clip{suffix[1:]}")), suffix
    Image.new("RGB", (8, 8)).save(tmp_path / "a.gif")
    Image.new("RGB", (8, 8)).save(tmp_path / "picture", format="PNG")
    (tmp_path / "h").write_bytes(b"\0\0\0\x18ftypheic" + bytes(30))
    assert not any(map(is_video, (tmp_path / "a.gif", tmp_path / "picture", tmp_path / "h", known)))


def test_patterns_and_names_without_passwords(tmp_path):
    for name in ("b.mp4", "a.mp4", "c.jpg"):
        (tmp_path / name).touch()
    assert videos_among([f"{tmp_path}/*.mp4", "c.jpg"]) == [str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")]
    with pytest.raises(VideoError, match="matches no file"):
        videos_among([f"{tmp_path}/*.mov"])
    assert shown_name("rtsp://me:secret@camera:554/1?x=1") == "rtsp://camera:554/1?x=1"
    assert shown_name("rtsp://me:secret@[bad/1") == "rtsp://[bad/1"
    assert shown_name("a@b/clip.mp4") == "a@b/clip.mp4"
