"""The command detect where it is given videos: its options for them, what it refuses, and what it shows."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssdtrt import config
from ssdtrt.commands.options import check_apart, check_json, end_with, show, terminal
from ssdtrt.commands.parameters.folders import check_folder_name
from ssdtrt.system.report import counted

if TYPE_CHECKING:
    from ssdtrt.detect import Detector
    from ssdtrt.errors import VideoError
    from ssdtrt.video.decoder import VideoInfo
    from ssdtrt.video.files import VideoOutputs
    from ssdtrt.video.records import DetectVideoReport
    from ssdtrt.video.sinks import FrameLinesSink

_OF_PICTURES = {
    "coco": "--coco", "annotations": "--annotations", "side_by_side": "--side-by-side", "save_crops": "--save-crops",
    "value_range": "--range", "max_pixels": "--max-pixels", "timing": "--timing",
}  # fmt: skip


def video_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for videos to `detect`, and do it here where videos are given; else the command is called."""

    @click.option("--every", type=click.IntRange(min=1), metavar="N", help="Videos: every Nth frame.  [default: 1]")
    @click.option("--video", is_flag=True, help="IMAGEs are videos, whatever they are called.")
    @functools.wraps(command)
    def with_videos(*, images: Sequence[str], every: int | None, video: bool, **options: Any) -> Any:
        from ssdtrt.video.sources import is_video, videos_among

        others = [] if video else [one for one in images if not is_video(one)]
        if len(others) == len(images):
            if every:
                raise click.UsageError("--every is for videos; --video takes what is given as such.")
            return command(images=images, **options)
        if others:
            known = next(one for one in images if one not in others)
            raise click.UsageError(f"{known} is a video and {others[0]} is not: give videos or pictures.")
        videos = list(images) if video else videos_among(images)
        return _detect_in_videos(videos, every or 1, **options)

    return with_videos


def _detect_in_videos(
    videos: list[str], every: int, *, file: str, output: str | None, jsonl: str | None, module: Any,
    saving: dict[str, Any], reading: dict[str, Any], device: Any, sha256: str | None, json_file: str | None, **options: Any
) -> None:  # fmt: skip
    """Do what `detect` does, with videos."""
    given = {**saving, **reading, **{name: options.pop(name) for name in ("coco", "annotations", "timing")}}
    for name, option in _OF_PICTURES.items():
        if given.get(name):
            raise click.UsageError(f"{option} is for pictures; give -o or --jsonl for videos.")
    _check_outputs(videos, file, output, jsonl, json_file, drawing=bool(saving))
    from ssdtrt.detect import Detector
    from ssdtrt.runners.runner import load_engine
    from ssdtrt.video.files import detect_videos
    from ssdtrt.video.sources import load_av

    load_av()
    check_json(jsonl, json_file)
    terminal.progress("loading")
    runner = load_engine(file, device, sha256=sha256)
    detector = Detector(runner, **options, note=terminal.note)
    failures: list[VideoError] = []
    started = time.perf_counter()
    with _Outputs(detector, output, jsonl, every, saving.get("show_labels", True)) as outputs:
        runs = detect_videos(detector, videos, outputs.of, failures, every, reading["timeout"], terminal.progress)
    report = _report(detector, runs, every, time.perf_counter() - started, failures)
    if runs:
        show(report, json_file, lambda found, _: _text(found), err=jsonl == "-")
    end_with(failures)


def _check_outputs(
    videos: list[str], file: str, output: str | None, jsonl: str | None, json_file: str | None, drawing: bool
) -> None:
    from ssdtrt.system.outputs import check_output
    from ssdtrt.video.sources import is_video, scheme_of

    if drawing and jsonl and not output:
        raise click.UsageError("--no-labels draws: give -o too.")
    check_apart({"-o": output, "--jsonl": jsonl, "--json": json_file}, [file, f"{file}.sha256"])
    check_apart({"-o": output, "--jsonl": jsonl, "--json": json_file}, [one for one in videos if not scheme_of(one)])
    if output is None or os.path.isdir(output):
        return
    if _is_video_file(output):
        if len(videos) > 1:
            raise click.UsageError(f"{output} can hold one of {len(videos)} videos: give a folder with -o.")
        check_output(output)
    elif is_video(output):
        from ssdtrt.video.sinks import FORMATS

        raise click.UsageError(f"{output}: expected one of {', '.join(FORMATS)} as suffix, or a folder.")
    else:
        check_folder_name(output)


def _is_video_file(output: str) -> bool:
    from ssdtrt.video.sinks import FORMATS

    return Path(output).suffix.lower() in FORMATS and not os.path.isdir(output)


class _Outputs(contextlib.ExitStack):
    """Opens the outputs of each video when it is known to be one, so that a mistyped name replaces no earlier results."""

    def __init__(self, detector: Detector, output: str | None, jsonl: str | None, every: int, show_labels: bool):
        super().__init__()
        self._detector, self._output, self._jsonl, self._every = detector, output, jsonl, every
        self._show_labels = show_labels
        self._lines: FrameLinesSink | None = None

    def of(self, video: str, info: VideoInfo) -> VideoOutputs:
        """The outputs of one video: one file, or in a folder a pair of that name; JSON lines of all in one file."""
        from ssdtrt.system.outputs import new_folder
        from ssdtrt.video.files import VideoOutputs

        if self._output is None and self._jsonl is None:
            self._output = str(new_folder(config.DETECT_DIR))
        path, jsonl = self._output, self._jsonl
        if path is not None and not _is_video_file(path):
            path, beside = _unused_pair(path, video)
            jsonl = jsonl or beside
        if jsonl is not None and (self._lines is None or self._jsonl is None):
            self._lines = self._open_lines(jsonl)
        return VideoOutputs(None if path is None else self._annotated(path, info), self._lines, jsonl)

    def _open_lines(self, jsonl: str) -> FrameLinesSink:
        from ssdtrt.video.sinks import FrameLinesSink

        target = sys.stdout if jsonl == "-" else jsonl
        return self.enter_context(FrameLinesSink(target, self._detector.runner.labels))

    def _annotated(self, path: str, info: VideoInfo) -> Any:
        from ssdtrt.detection.results import UNTRAINED
        from ssdtrt.video.sinks import VideoSink

        runner = self._detector.runner
        note = "" if runner.trained else UNTRAINED
        return VideoSink(path, runner.labels, info, self._every, note, show_labels=self._show_labels)


def _unused_pair(folder: str, video: str) -> tuple[str, str]:
    """Paths for an annotated video and its JSON lines in a folder, which is made: clip.mp4, clip.jsonl, or clip-2 of both."""
    from ssdtrt.errors import ArtifactError
    from ssdtrt.video.sources import scheme_of, shown_name

    try:
        os.makedirs(folder, exist_ok=True)
        taken = {os.path.splitext(name)[0].lower() for name in os.listdir(folder)}
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be written: {error.strerror}. Give another with -o.") from error
    stem = Path(shown_name(video).partition("?")[0]).stem if not scheme_of(video) or Path(video).suffix else "stream"
    number, name = 1, stem
    while name.lower() in taken:
        number += 1
        name = f"{stem}-{number}"
    return os.path.join(folder, f"{name}.mp4"), os.path.join(folder, f"{name}.jsonl")


def _report(
    detector: Detector, runs: Sequence[Any], every: int, seconds: float, failures: Sequence[VideoError]
) -> DetectVideoReport:
    from ssdtrt.system.versions import measured_on
    from ssdtrt.video.records import DetectVideoReport

    runner, frames = detector.runner, sum(run.frames for run in runs)
    return DetectVideoReport(
        file=str(getattr(runner, "path", runner.name)),
        precision=runner.precision,
        machine=measured_on(runner.device),
        every=every,
        videos=tuple(runs),
        frames=frames,
        detections=sum(run.detections for run in runs),
        seconds=seconds,
        frames_per_second=frames / seconds if seconds else 0.0,
        failures=tuple(map(str, failures)),
    )


def _text(report: DetectVideoReport) -> str:
    """Return a line for each video, the throughput, and what was written."""
    lines = []
    for run in report.videos:
        until = "" if run.last is None else f", to {run.last:.3f} s"
        lines.append(f"{run.video}: {counted(run.detections, 'object')} in {counted(run.frames, 'frame')}{until}")
    lines.append(f"{counted(report.frames, 'frame')}, {report.frames_per_second:,.1f} frames/s")
    written = [path for run in report.videos for path in (run.annotated, run.jsonl) if path and path != "-"]
    return "\n".join([*lines, *(f"written to {path}" for path in dict.fromkeys(written))])
