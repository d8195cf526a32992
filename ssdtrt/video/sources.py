"""Which arguments are videos: addresses by their scheme and path, files by their name or first bytes. No PyAV here."""

from __future__ import annotations

import glob
import mimetypes
import os
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from ssdtrt.errors import VideoError
from ssdtrt.reading.addresses import path_of, shown
from ssdtrt.system.versions import pip_install

LIVE_SCHEMES = frozenset(("rtsp", "rtsps", "rtmp", "rtmps", "udp", "srt", "tcp"))
"""Schemes of streams that have no end of their own."""
WEB_SCHEMES = frozenset(("http", "https"))
PLAYLISTS = frozenset((".m3u8", ".mpd"))
"""Suffixes of addresses whose video is in other files."""
_SUFFIXES = PLAYLISTS | frozenset((
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".mpe", ".m2v", ".wmv",
    ".asf", ".flv", ".f4v", ".ogv", ".3gp", ".3g2", ".mxf", ".vob", ".divx", ".h264", ".264", ".h265", ".hevc", ".y4m",
))  # fmt: skip
_ARCHIVE = b"PK"  # how a TorchScript file begins, whose suffix is .ts as well
_STARTS = (
    b"\x1aE\xdf\xa3",
    b"FLV\x01",
    b"\0\0\x01\xba",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
)  # Matroska, FLV, MPEG, ASF
_PICTURE_BRANDS = (b"hei", b"hev", b"mif", b"msf", b"avi", b"crx", b"jxl")  # of files that begin as MP4 does
_TS_PACKET = 188  # bytes, each beginning with 0x47
_TYPES = mimetypes.MimeTypes()  # Python's own, not those of the machine


def scheme_of(source: str) -> str:
    """Return the scheme of an address, in lowercase; "" for a path, also one such as `C:clip.mp4`."""
    scheme, separator, _ = source.partition("://")
    return scheme.lower() if separator and scheme.isalnum() else ""


def shown_name(source: str | Path) -> str:
    """Return how a video is called in messages and results: a path as it is, an address without user and password."""
    return shown(str(source))


def suffix_of(source: str) -> str:
    """Return the suffix of a path or of an address's path, in lowercase."""
    return os.path.splitext(path_of(source))[1].lower()


def is_video(source: str | Path) -> bool:
    """Return whether an argument is a video: a stream's address, a video's suffix, or a file that begins as videos do.

    Args:
        source: A path or an address. Of a file with a picture's suffix, as of a GIF, the content is not looked at.
    """
    text = str(source)
    scheme, suffix = scheme_of(text), suffix_of(text)
    if scheme:
        return scheme in LIVE_SCHEMES or (scheme in WEB_SCHEMES and suffix in _SUFFIXES)
    if not os.path.isfile(text):
        return suffix in _SUFFIXES and not os.path.isdir(text)
    if suffix == ".ts":
        return not _head(text).startswith(_ARCHIVE)
    kind = _TYPES.guess_type(f"x{suffix}")[0] or ""
    return suffix in _SUFFIXES or (not kind.startswith("image/") and _begins_as_video(_head(text)))


def videos_among(arguments: Iterable[str | Path]) -> list[str]:
    """Return those arguments that are videos, with what matches a pattern such as `in/*.mp4` in its place.

    Raises:
        VideoError: For a pattern that matches no file.
    """
    found: list[str] = []
    for argument in filter(is_video, arguments):
        text = str(argument)
        if scheme_of(text) or not glob.has_magic(text) or os.path.exists(text):
            found.append(text)
            continue
        matches = sorted(glob.glob(text, recursive=True))
        if not matches:
            raise VideoError(f"{text} matches no file.")
        found += matches
    return found


def load_av() -> ModuleType:
    """Return PyAV, which shows nothing of what FFmpeg logs.

    Raises:
        VideoError: Where it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise VideoError(f"Videos need PyAV, which cannot be imported ({error}): {pip_install('video')}") from error
    av.logging.set_level(None)  # As it is by default; torchvision turns it on, up to 0.21.
    return av


def _head(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(2 * _TS_PACKET + 1)
    except OSError:
        return b""


def _begins_as_video(head: bytes) -> bool:
    if head[4:8] == b"ftyp":
        return not head[8:12].lower().startswith(_PICTURE_BRANDS)
    if head[:4] == b"RIFF":
        return head[8:12] == b"AVI "
    return head.startswith(_STARTS) or head[::_TS_PACKET] == b"GGG"
