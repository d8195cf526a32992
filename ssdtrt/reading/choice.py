"""Which way pictures are read: by threads, by processes or at once, and where their JPEGs are decoded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import torch

from ssdtrt import config
from ssdtrt.images.decode import Picture
from ssdtrt.images.gpu_decode import JpegDecoder
from ssdtrt.images.tensors import Pictures, as_list
from ssdtrt.reading.device_decoding import GROUPS_HELD, decode_on_device
from ssdtrt.reading.reader import PictureReader, Prepared


def read(
    reader: PictureReader,
    pictures: Pictures,
    batch_size: int,
    overlaps: bool,
    device: torch.device,
    keep: bool = False,
    many: bool = False,
    resize_on_device: bool = False,
    decoder: JpegDecoder | None = None,
) -> tuple[Prepared, bool]:
    """Read pictures in the way that suits them.

    Args:
        reader: How they are read; with `jpegs` exactly if there is a decoder.
        pictures: One picture, several, or a batch.
        batch_size: How many run at once.
        overlaps: Whether batches are brought to the device while another runs.
        device: Where the pixels will be.
        keep: Whether each picture itself is kept.
        many: Whether processes read the pictures, which are paths then.
        resize_on_device: Whether the device resizes small pictures.
        decoder: Decodes JPEG files on the device.

    Returns:
        The pictures, and whether reading them takes time beside the network's.
    """
    listed = as_list(pictures)
    if many and not keep:
        # One batch runs while another is gathered; more may wait between the threads, and for those that decode.
        held = 2 + (1 + config.BATCHES_AHEAD if overlaps else 0) + (GROUPS_HELD if decoder is not None else 0)
        paths = cast(Iterable[str | Path], listed)
        prepared = reader.with_processes(paths, held * batch_size, device, resize_on_device)
    elif reader.few_in_memory(listed, batch_size, resize_on_device):
        return reader.at_once(cast(Sequence[Picture], listed), keep, resize_on_device), False
    else:
        prepared = reader.with_threads(listed, keep)
    if decoder is not None:
        prepared = decode_on_device(prepared, decoder, reader, batch_size)
    return prepared, True
