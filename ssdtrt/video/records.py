"""What is written as JSON about videos: the detections of a frame, and what a run did. No torch here."""

from __future__ import annotations

from ssdtrt.detection.results import Detection
from ssdtrt.system.report import Report
from ssdtrt.system.versions import MeasuredOn


class FrameDetections(Report, frozen=True):
    """The detections of one frame, the best first: its document is a line of JSON lines.

    Attributes:
        video: The video's path or address, without user and password.
        frame: The frame's number among all of the source, from 0.
        time: When it is shown, in seconds from the beginning of the source, to 1 ms.
        width: Its width in pixels.
        height: Its height in pixels.
        detections: What was found in it.
    """

    kind = "frame"

    video: str
    frame: int
    time: float
    width: int
    height: int
    detections: tuple[Detection, ...]


class VideoRun(Report, frozen=True):
    """What was done with one video.

    Attributes:
        video: Its path or address, without user and password.
        frames: In how many frames objects were looked for.
        detections: How many were found.
        last: The time of the last of these frames, in seconds from the beginning; None without one.
        annotated: The annotated video; None where none was written.
        jsonl: The file of JSON lines, `-` for stdout; None without.
    """

    video: str
    frames: int
    detections: int
    last: float | None
    annotated: str | None
    jsonl: str | None


class DetectVideoReport(Report, frozen=True):
    """What a run over videos did; the detections themselves are in the files that it wrote.

    Attributes:
        file: What detected.
        precision: The precision that it computes in.
        machine: Where it ran.
        every: Which frames: 0, `every`, 2 * `every` and so on.
        videos: What was done with each video that could be opened.
        frames: In how many frames of all videos objects were looked for.
        detections: How many were found.
        seconds: From the first video to the last file that was written.
        frames_per_second: Frames read, run and written a second.
        failures: Why videos could not be read, or not to their end.
    """

    kind = "detect-video"

    file: str
    precision: str
    machine: MeasuredOn
    every: int
    videos: tuple[VideoRun, ...]
    frames: int
    detections: int
    seconds: float
    frames_per_second: float
    failures: tuple[str, ...]
