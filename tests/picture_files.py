"""Picture files, and folders of them. Files that Pillow does not write: PNGs of any bit depth, with any chunks, and TIFFs of 16 bits a channel."""

import os
import struct
import zlib


def visible(folder):
    """The names in a folder, sorted, without hidden ones."""
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, bits, kind, data, *chunks):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    parts = [chunk(*part) for part in chunks]
    end = [chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join([header, *parts, *end])


def tiff(pixels, order):
    """A TIFF of 16 bits a channel, which Pillow does not write."""
    height, width, channels = pixels.shape
    data = pixels.astype(f"{order}u2").tobytes()
    entries = [(256, 3, width), (257, 3, height), (258, 3, None), (259, 3, 1), (262, 3, 2), (273, 4, None)]
    entries += [(277, 3, channels), (278, 3, height), (279, 4, len(data))]
    bits = 8 + 2 + 12 * len(entries) + 4
    content = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(entries))
    for tag, kind, value in entries:
        count = channels if tag == 258 else 1
        value = {258: bits, 273: bits + 2 * channels}.get(tag, value)
        long = kind == 4 or tag == 258
        content += struct.pack(f"{order}HHI", tag, kind, count)
        content += struct.pack(f"{order}I", value) if long else struct.pack(f"{order}HH", value, 0)
    return content + struct.pack(f"{order}I", 0) + struct.pack(f"{order}{channels}H", *[16] * channels) + data
