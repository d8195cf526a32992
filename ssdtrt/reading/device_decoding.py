"""Decode the JPEG files among pictures that were read on a GPU."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import replace
from functools import partial

from ssdtrt import config
from ssdtrt.errors import ImageError
from ssdtrt.images.gpu_decode import JpegDecoder
from ssdtrt.images.jpeg import EncodedJpeg
from ssdtrt.reading.read_ahead import in_order
from ssdtrt.reading.reader import PictureReader, Prepared, PreparedPicture
from ssdtrt.system.gpu_errors import gpu_errors, out_of_memory

GROUPS_HELD = config.GPU_DECODERS + 1
"""Groups of pictures that are decoded, or wait to be taken or for a thread that decodes."""

NOT_DECODED = "the GPU could not decode it, so the CPU did, which is slower"


def decode_on_device(prepared: Prepared, decoder: JpegDecoder, reader: PictureReader, size: int) -> Prepared:
    """Yield the pictures with the pixels of JPEG files on the GPU; those that it cannot decode have Pillow's.

    Args:
        prepared: What the reader read, with JPEG files. It is closed at the end.
        decoder: The decoder, called by several threads.
        reader: The reader.
        size: How many pictures are taken at a time.

    Raises:
        GpuError: Where the GPU fails.
    """
    groups = iter(lambda: list(itertools.islice(prepared, size)), [])
    decode = partial(decode_group, decoder=decoder, reader=reader)
    with (
        contextlib.closing(prepared),
        contextlib.closing(in_order(decode, groups, config.GPU_DECODERS, GROUPS_HELD)) as decoded,
    ):
        for group in decoded:
            yield from group


def decode_group(
    group: list[PreparedPicture | ImageError], decoder: JpegDecoder, reader: PictureReader
) -> list[PreparedPicture | ImageError]:
    """Return some pictures as `decode_on_device` yields them.

    Args:
        group: The pictures; the list is changed.
        decoder: The decoder.
        reader: The reader.

    Raises:
        GpuError: Where the GPU fails.
    """
    with reader.times.busy("decode", config.GPU_DECODERS), gpu_errors():
        return _decode_group(group, decoder, reader)


def _decode_group(
    group: list[PreparedPicture | ImageError], decoder: JpegDecoder, reader: PictureReader
) -> list[PreparedPicture | ImageError]:
    jpegs = {place: one.pixels for place, one in enumerate(group)
             if isinstance(one, PreparedPicture) and isinstance(one.pixels, EncodedJpeg)}  # fmt: skip
    try:
        images = decoder(list(jpegs.values())) if jpegs else []
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        images = [None] * len(jpegs)
    for place, image in zip(jpegs, images):
        one = group[place]
        assert isinstance(one, PreparedPicture)
        one.release()
        if image is None:
            found = reader.with_pillow(one)
            if not isinstance(found, ImageError):
                # Of an open file it would keep the whole picture.
                found = replace(found, name=one.name, source=one.source, notes=(*found.notes, NOT_DECODED))
            group[place] = found
        else:
            group[place] = PreparedPicture(one.index, one.name, one.size, image, one.source, notes=one.notes)
    return group
