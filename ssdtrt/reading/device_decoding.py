"""Decode the JPEG files among pictures that were read on a GPU."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import replace

from ssdtrt import config
from ssdtrt.errors import ImageError
from ssdtrt.images.gpu_decode import JpegDecoder
from ssdtrt.images.jpeg import EncodedJpeg
from ssdtrt.reading.read_ahead import in_order
from ssdtrt.reading.reader import PictureReader, Prepared, PreparedPicture, release_nothing
from ssdtrt.system.gpu_errors import out_of_memory

GROUPS = config.DECODE_LANES + 1
"""How many groups of pictures are held at most: those that are decoded, and the next."""


def decode_on_device(prepared: Prepared, decoder: JpegDecoder, reader: PictureReader, size: int) -> Prepared:
    """Yield the pictures with the pixels of JPEG files on the GPU; those that it cannot decode have Pillow's.

    Args:
        prepared: What the reader read, with JPEG files. It is closed at the end.
        decoder: The decoder.
        reader: The reader.
        size: How many pictures are taken at a time.
    """

    def decode(group: list[PreparedPicture | ImageError]) -> list[PreparedPicture | ImageError]:
        with reader.times.busy("decode", config.DECODE_LANES):
            return _decode(group, decoder, reader)

    groups: Iterator[list[PreparedPicture | ImageError]] = iter(lambda: list(itertools.islice(prepared, size)), [])
    decoding = in_order(decode, groups, config.DECODE_LANES, GROUPS)
    with contextlib.closing(prepared), contextlib.closing(decoding):
        for decoded in decoding:
            yield from decoded


def _decode(
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
        group[place] = reader.with_pillow(one) if image is None else replace(one, pixels=image, release=release_nothing)
    return group
