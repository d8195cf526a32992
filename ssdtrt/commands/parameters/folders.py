"""The check of options that name a folder."""

from __future__ import annotations

import mimetypes
import os

import click

_KINDS = {"image": "a picture", "video": "a video"}


def check_folder_name(output: str | None) -> None:
    """Refuse a new folder that is called like a file: whoever gives `-o boxes.jpg` wants one picture there.

    Args:
        output: The folder that -o names; None where it was not given.

    Raises:
        click.UsageError: For a name with the suffix of pictures, videos or JSON.
    """
    if output is None or os.path.isdir(output):
        return
    kind = _KINDS.get((mimetypes.guess_type(output)[0] or "").partition("/")[0])
    if output.endswith((".json", ".jsonl")):
        kind = "JSON"
    if kind:
        raise click.UsageError(f"-o is a folder, and {output} is called like {kind}: give a folder such as -o out.")
