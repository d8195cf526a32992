"""The command detect on videos: what is written, what is refused, and what is kept of a stream that breaks off."""

import os
import signal
import subprocess
import sys
import time

import pytest
from command_line import INTERRUPTED, assert_refused, strict
from video_files import CHUNKED, chunked, decoded, sending, video

from known import BLUE, RED, Few, known_file


def lines_of(text):
    """The frames of JSON lines, without the schema and the kind that each begins with."""
    found = [strict(line) for line in text.splitlines()]
    assert all((one.pop("schema"), one.pop("kind")) == (1, "frame") for one in found)
    return found


def test_three_hundred_frames(ssdtrt, tmp_path):
    """A line a frame, the times those of 30 frames a second, and the annotated video has them all and their times."""
    few = known_file(tmp_path / "few.ts", network=Few)
    video(tmp_path / "clip.mp4", 300)
    done = ssdtrt(
        "detect", few, "clip.mp4", "-o", "out.mp4", "--jsonl", "d.jsonl", "--json", "run.json", "--device", "cpu"
    )
    assert done.exit_code == 0, done.stderr
    lines = lines_of((tmp_path / "d.jsonl").read_text())
    assert [line["frame"] for line in lines] == list(range(300))
    assert all(abs(line["time"] - number / 30) < 1e-3 for number, line in enumerate(lines))
    assert [lines[number]["time"] for number in (0, 1, 2, 30, 299)] == [0, 0.033, 0.067, 1, 9.967]
    for number, line in enumerate(lines):
        assert (line["video"], line["width"], line["height"]) == ("clip.mp4", 64, 48)
        assert [one["label"] for one in line["detections"]] == [("cat", "car")[number % 2]]
    assert lines[0]["detections"][0]["box"] == pytest.approx([4.16, 3.12, 59.84, 44.88], abs=0.011)
    frames = decoded(tmp_path / "out.mp4")
    assert [seconds for seconds, _ in frames] == pytest.approx([number / 30 for number in range(300)], abs=1e-3)
    for number, (_, pixels) in enumerate(frames):
        assert pixels[8:40, 12:52].mean((0, 1)) == pytest.approx((RED, BLUE)[number % 2], abs=12), number
    assert done.stdout.splitlines()[0] == "clip.mp4: 300 objects in 300 frames, to 9.967 s"
    assert done.stdout.splitlines()[2:] == ["written to out.mp4", "written to d.jsonl"]
    report = strict((tmp_path / "run.json").read_text())
    assert report.pop("frames_per_second") == pytest.approx(300 / report.pop("seconds"))
    one = {
        "video": "clip.mp4",
        "frames": 300,
        "detections": 300,
        "last": 9.967,
        "annotated": "out.mp4",
        "jsonl": "d.jsonl",
    }
    assert report.pop("machine")["cpu"] and report == {
        "schema": 1, "kind": "detect-video", "file": str(few), "precision": "fp32", "every": 1, "videos": [one],
        "frames": 300, "detections": 300, "failures": [],
    }  # fmt: skip


def test_every_nth_frame_of_several_videos_in_one_file_and_in_a_folder(known, ssdtrt, tmp_path):
    """Whose names are free there; an own video of the same name stays, and so does that of the run before."""
    video(tmp_path / "clip.mp4", 7, rate=10)
    video(tmp_path / "other.mkv", times=[0, 500, 510, 2000])
    call = ["-q", "detect", known, "clip.mp4", "other.mkv", "--every", 3, "--device", "cpu", "--no-labels"]
    done = ssdtrt(*call, "-o", "out", "--jsonl", "-")
    assert done.exit_code == 0, done.stderr
    found = [(line["video"], line["frame"], line["time"]) for line in lines_of(done.stdout)]
    assert found == [
        ("clip.mp4", 0, 0),
        ("clip.mp4", 3, 0.3),
        ("clip.mp4", 6, 0.6),
        ("other.mkv", 0, 0),
        ("other.mkv", 3, 2),
    ]
    assert sorted(os.listdir("out")) == ["clip.mp4", "other.mp4"]
    assert ssdtrt(*call, "-o", "out").exit_code == 0 and ssdtrt(*call[:4], *call[5:], "-o", ".").exit_code == 0
    assert sorted(os.listdir("out")) == [
        "clip-2.jsonl",
        "clip-2.mp4",
        "clip.mp4",
        "other-2.jsonl",
        "other-2.mp4",
        "other.mp4",
    ]
    assert [seconds for seconds, _ in decoded("out/other-2.mp4")] == pytest.approx([0, 2], abs=1e-3)
    assert (
        len(decoded("clip.mp4")) == 7
        and len(decoded("clip-2.mp4")) == len(lines_of((tmp_path / "clip-2.jsonl").read_text())) == 3
    )


def test_without_an_output_there_is_a_new_folder(known, ssdtrt, tmp_path):
    video(tmp_path / "a.mp4", 2).rename(tmp_path / "clip")
    done = ssdtrt("-q", "detect", known, "clip", "--device", "cpu")  # Known by its content.
    assert done.exit_code == 0 and sorted(os.listdir("detections")) == ["clip.jsonl", "clip.mp4"]
    assert done.stdout.splitlines()[2:] == ["written to detections/clip.mp4", "written to detections/clip.jsonl"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["a.mp4", "a.jpg"], "a.mp4 is a video and a.jpg is not: give videos or pictures."),
        (["a.mp4", "--coco", "r.json"], "--coco is for pictures; give -o or --jsonl for videos."),
        (["a.mp4", "-o", "x.mp4", "--side-by-side"], "--side-by-side is for pictures; give -o or --jsonl for videos."),
        (["a.mp4", "-o", "x", "--save-crops"], "--save-crops is for pictures; give -o or --jsonl for videos."),
        (["a.mp4", "--range", "0:9"], "--range is for pictures; give -o or --jsonl for videos."),
        (["a.mp4", "--jsonl", "d", "--no-labels"], "--no-labels draws: give -o too."),
        (["a.mp4", "b.mp4", "-o", "x.mp4"], "x.mp4 can hold one of 2 videos: give a folder with -o."),
        (["a.mp4", "-o", "x.avi"], "x.avi: expected one of .mp4, .m4v, .mov, .mkv, .webm as suffix, or a folder."),
        (
            ["a.mp4", "-o", "x.gif"],
            "-o is a folder, and x.gif is called like a picture: give a folder such as -o out.",
        ),
        (["a.mp4", "-o", "a.mp4"], "a.mp4 is an input; give another path for -o."),
        (["a.jpg", "--every", "2"], "--every is for videos; --video takes what is given as such."),
    ],
)
def test_what_does_not_fit_videos_is_refused_before_any_work(arguments, message, ssdtrt, tmp_path):
    done = ssdtrt("detect", "none.ts", *arguments)
    assert done.exit_code == 2 and done.stderr.endswith(f"Error: {message}\n") and os.listdir(tmp_path) == []


def test_a_video_that_cannot_be_read_costs_no_earlier_results(known, ssdtrt, tmp_path):
    for name in ("d.jsonl", "out.mp4"):
        (tmp_path / name).write_text("before")
    call = ["-q", "detect", known, "typo.mp4", "-o", "out.mp4", "--device", "cpu"]
    assert_refused(
        ssdtrt(*call, "--jsonl", "d.jsonl"), "typo.mp4 cannot be opened as a video (No such file or directory)."
    )
    assert ssdtrt(*call[:4], "--device", "cpu").exit_code == 1
    assert {name: (tmp_path / name).read_text() for name in os.listdir(tmp_path)} == {
        "d.jsonl": "before",
        "out.mp4": "before",
    }


def test_a_stream_that_is_cut_keeps_what_was_done(known, ssdtrt, tmp_path):
    """And the next video is read, as after one that is not there; FFmpeg says nothing of its own."""
    content = video(tmp_path / "a.ts", 30, codec="mpeg2video").read_bytes()
    with sending(chunked(content[: 188 * (len(content) // 376)]), CHUNKED, "close") as port:
        address = f"http://me:secret@127.0.0.1:{port}/a.ts"
        done = ssdtrt("-q", "detect", known, address, "-o", "out.mp4", "--jsonl", "d.jsonl", "--device", "cpu")
        lines = lines_of((tmp_path / "d.jsonl").read_text())
        last = lines[-1]
        assert (
            done.exit_code == 1 and 5 < len(lines) < 25 and [line["frame"] for line in lines] == list(range(len(lines)))
        )
        shown = f"http://127.0.0.1:{port}/a.ts"
        assert done.stderr == (
            f"Error: {shown} broke off after frame {last['frame']} ({last['time']:.3f} s): the connection was cut.\n"
        )
        assert last["video"] == shown and len(decoded("out.mp4")) == len(lines)
        done = ssdtrt(
            "-q", "detect", known, "typo.mp4", address, "a.ts", "--every", 10, "--jsonl", "-", "--device", "cpu"
        )
    numbers = [(line["video"], line["frame"]) for line in lines_of(done.stdout)]
    assert (
        done.exit_code == 1 and numbers[0] == (shown, 0) and numbers[-3:] == [("a.ts", 0), ("a.ts", 10), ("a.ts", 20)]
    )


@pytest.mark.slow  # A process that starts anew: a forked one can hang in FFmpeg's locks.
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_ends_a_stream_that_stalls_and_keeps_what_was_done(known, tmp_path):
    content = video(tmp_path / "a.ts", 40, codec="mpeg2video").read_bytes()
    with sending(chunked(content), CHUNKED, "stall") as port:
        command = ["-q", "detect", known, f"http://127.0.0.1:{port}/a.ts", "-o", "out.mp4", "--jsonl", "d.jsonl"]
        words = [sys.executable, "-m", "ssdtrt", *map(str, command), "--device", "cpu"]
        with open(tmp_path / "stdout", "w") as out, open(tmp_path / "stderr", "w") as errors:
            process = subprocess.Popen(words, cwd=tmp_path, stdout=out, stderr=errors, start_new_session=True)
        deadline, size = time.monotonic() + 30, -1
        while time.monotonic() < deadline:
            time.sleep(0.5)
            now = (tmp_path / "d.jsonl").stat().st_size if (tmp_path / "d.jsonl").exists() else 0
            if now and now == size:
                break
            size = now
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130 and time.monotonic() - started < 1
    assert (tmp_path / "stderr").read_text() == f"{INTERRUPTED}\n"
    lines = lines_of((tmp_path / "d.jsonl").read_text())
    assert len(decoded(tmp_path / "out.mp4")) == len(lines) > 10
    assert sorted(os.listdir(tmp_path)) == ["a.ts", "d.jsonl", "out.mp4", "stderr", "stdout"]


def test_without_pyav_it_says_how_to_install_it(known, ssdtrt, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    done = ssdtrt("-q", "detect", known, "a.mp4", "-o", "out.mp4")
    assert_refused(done, "Videos need PyAV, which cannot be imported (import of av halted; None in sys.modules): "
                         "pip install 'ssdtrt[video]'")  # fmt: skip
