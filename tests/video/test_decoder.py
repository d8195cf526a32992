"""Frames of a video: their numbers, times and pixels, upright, and what is said of a video that is not whole."""

import re
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from video_files import video

from known import RED
from ssdtrt.errors import VideoError
from ssdtrt.video.decoder import Decoder, upright


def frames_of(path, every=1):
    """All frames, and the message of how the video ended; "" for a whole one."""
    found = []
    with Decoder(path, 5) as decoder:
        try:
            found.extend(decoder.frames(every))
        except VideoError as error:
            return found, str(error)
    return found, ""


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts"])
def test_numbers_and_times_are_those_of_the_source(name, tmp_path):
    """Of MPEG-TS too, whose time stamps do not begin with 0."""
    path = video(tmp_path / name, 7, rate=24, codec="mpeg2video" if name == "a.ts" else "mpeg4")
    found, end = frames_of(path, every=3)
    assert end == "" and [frame.number for frame in found] == [0, 3, 6]
    assert [frame.seconds for frame in found] == pytest.approx([0, 0.125, 0.25], abs=1e-3)
    assert found[0].pixels.shape == (48, 64, 3) and found[0].pixels.dtype == np.uint8
    assert found[0].pixels.mean((0, 1)) == pytest.approx(RED, abs=4)


@pytest.mark.parametrize("name", ["v.mkv", "v.mp4"])
def test_times_of_a_variable_frame_rate(name, tmp_path):
    times = [0, 40, 140, 141, 1000, 4321]
    found, end = frames_of(video(tmp_path / name, times=times))
    assert end == "" and [frame.seconds for frame in found] == pytest.approx([time / 1000 for time in times], abs=5e-4)


def with_matrix(path, matrix):
    """Writes a display matrix into an MP4: nine numbers in the track's header, as phones do."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    content[at : at + 36] = b"".join(number.to_bytes(4, "big", signed=True) for number in matrix)
    path.write_bytes(content)
    return path


ONE, W = 1 << 16, 1 << 30


@pytest.mark.parametrize(
    "matrix, turn",
    [
        ((0, ONE, 0, -ONE, 0, 0, 48 * ONE, 0, W), lambda pixels: np.rot90(pixels, -1)),
        ((0, -ONE, 0, ONE, 0, 0, 0, 64 * ONE, W), np.rot90),
        ((-ONE, 0, 0, 0, -ONE, 0, 64 * ONE, 48 * ONE, W), lambda pixels: np.rot90(pixels, 2)),
        ((-ONE, 0, 0, 0, ONE, 0, 64 * ONE, 0, W), np.fliplr),
    ],
)
def test_frames_are_turned_upright(matrix, turn, tmp_path):
    """Beside NumPy's own turns: a quarter clockwise and back, half, and mirrored. The left half is red."""
    path = tmp_path / "a.mp4"
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:24, :32] = RED
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    (frame,), _ = frames_of(with_matrix(path, matrix))
    expected = turn(pixels)
    assert frame.pixels.shape == expected.shape and frame.pixels.flags.c_contiguous
    assert np.abs(frame.pixels.astype(int) - expected).mean() < 5


@given(st.integers(0, 3), st.booleans())
def test_every_quarter_turn_with_and_without_a_mirror(quarters, mirrored):
    """A pixel (x, y) is shown where the matrix puts it, moved to begin with 0."""
    matrix = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), quarters) @ np.diag([-1 if mirrored else 1, 1])
    pixels = np.arange(2 * 3 * 3).reshape(2, 3, 3)
    places = {(x, y): matrix @ (x, y) for y in range(2) for x in range(3)}
    least = np.min(list(places.values()), axis=0)
    nine = [matrix[0, 0], matrix[1, 0], 0, matrix[0, 1], matrix[1, 1], 0, 0, 0, 1]
    shown = upright(pixels, [int(number) for number in nine])
    for (x, y), place in places.items():
        to_x, to_y = place - least
        assert (shown[to_y, to_x] == pixels[y, x]).all()


def test_what_a_video_says_about_itself(tmp_path):
    with Decoder(video(tmp_path / "a.mp4", 5, (50, 30), 25, aspect=Fraction(4, 3)), 5) as decoder:
        info = decoder.info
    assert (info.rate, info.width, info.height, info.pixel_aspect, info.frames) == (25, 50, 30, Fraction(4, 3), 5)
    assert info.frames_in_memory == (256 << 20) // 4500


@pytest.mark.parametrize("name", ["a.mkv", "a.avi"])
def test_a_file_that_was_cut_gives_what_it_has(name, tmp_path, monkeypatch, capfd):
    """And FFmpeg says nothing of its own, although torchvision may have let it."""
    monkeypatch.chdir(tmp_path)
    content = video(tmp_path / name, 100, rate=25).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    av.logging.set_level(av.logging.ERROR)
    found, message = frames_of(name)
    last = found[-1].number
    assert 20 < last < 70 and len(found) == last + 1
    assert message == f"{name} broke off after frame {last} ({last / 25:.3f} s): it should have 4.000 s."
    assert capfd.readouterr().err == ""


def test_frames_after_damage_keep_their_numbers(tmp_path, monkeypatch):
    """Five packets in the middle are zeros: the others come, each with its number and time."""
    monkeypatch.chdir(tmp_path)
    video(tmp_path / "a.mp4", 60, rate=10)
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    with av.open("a.mp4") as container:
        for packet in [packet for packet in container.demux() if packet.size][30:35]:
            content[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    (tmp_path / "a.mp4").write_bytes(content)
    found, message = frames_of("a.mp4")
    assert [frame.number for frame in found] == [*range(30), *range(35, 60)]
    assert all(abs(frame.seconds - frame.number / 10) < 1e-3 for frame in found)
    assert message.startswith("a.mp4 is damaged: ") and message.endswith(
        " the first is frame 30; the others were read."
    )


def test_files_that_are_no_videos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    for name, reason in (
        ("none.mp4", "No such file or directory"),
        ("text.mp4", "Invalid data found when processing input"),
    ):
        with pytest.raises(VideoError) as caught:
            Decoder(name, 5)
        assert str(caught.value) == f"{name} cannot be opened as a video ({reason})."
    with pytest.raises(VideoError):  # What it names is not fetched.
        Decoder("list.m3u8", 5)


def test_what_names_no_codec_and_no_length(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = video(tmp_path / "a.avi", 2).read_bytes()
    (tmp_path / "a.avi").write_bytes(content.replace(b"FMP4", b"none"))
    with pytest.raises(VideoError, match=r"^a\.avi is of a codec that PyAV lacks\.$"):
        Decoder("a.avi", 5)
    content = video(tmp_path / "a.mkv", 2).read_bytes()
    (tmp_path / "a.mkv").write_bytes(re.sub(rb"00:00:00\.\d{9}", b"00:00:1/0".ljust(18), content))
    assert [frame.number for frame in frames_of("a.mkv")[0]] == [0, 1]
    with pytest.raises(VideoError, match=r"^http://\[bad/a\.mp4 cannot be opened as a video \(Invalid IPv6 URL\)\.$"):
        Decoder("http://[bad/a.mp4", 5)
