"""JPEG files of every kind, small and made here: subsampled, gray, progressive, turned, RGB, of two pictures, cut off."""

import io

import numpy as np
from PIL import Image

SUBSAMPLINGS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}


def picture(size, seed=0):
    """A smooth random RGB picture, as photographs are."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def jpeg(size=(64, 48), mode="RGB", seed=0, orientation=None, **options):
    """A JPEG's bytes; with an EXIF orientation where that is given."""
    if orientation is not None:
        options["exif"] = exif_with(orientation)
    content = io.BytesIO()
    picture(size, seed).convert(mode).save(content, "JPEG", **options)
    return content.getvalue()


def exif_with(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def segment(marker, content):
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content


def without_jfif(content):
    """The JPEG without its first segment."""
    assert content[2:4] == b"\xff\xe0"
    return content[:2] + content[4 + int.from_bytes(content[4:6], "big") :]


def without_tables(content):
    """The JPEG without its quantization tables: its header is a good one, and nothing can decode it."""
    while (place := content.find(b"\xff\xdb")) >= 0:
        content = content[:place] + content[place + 2 + int.from_bytes(content[place + 2 : place + 4], "big") :]
    return content


def with_segment(content, marker, inside):
    """The JPEG with one more segment at its beginning."""
    return content[:2] + segment(marker, inside) + content[2:]


def with_ids(content, ids, jfif=False):
    """The JPEG with these component ids, three bytes, and unless `jfif` without the mark that it is Y'CbCr."""
    content = bytearray(content if jfif else without_jfif(content))
    for marker, first in ((b"\xff\xc0", 10), (b"\xff\xda", 5)):
        place = content.index(marker) + first
        step = 3 if marker == b"\xff\xc0" else 2
        content[place : place + 3 * step : step] = ids
    return bytes(content)


def with_xmp_orientation(orientation):
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'
    return with_segment(jpeg(), 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp.encode())


def exif_as_text(orientation):
    """An EXIF block whose orientation is text, as no camera writes it."""
    entry = (0x0112).to_bytes(2, "little") + b"\2\0\2\0\0\0" + orientation.encode() + b"\0\0\0"
    return b"Exif\0\0II*\0\x08\0\0\0\1\0" + entry + b"\0\0\0\0"


def two_pictures():
    """A file as phones write them: a picture, and another one behind it."""
    content = io.BytesIO()
    picture((64, 48)).save(content, "MPO", save_all=True, append_images=[picture((32, 24), 1)])
    return content.getvalue()


def write_all(folder):
    """About sixty files in an order that mixes them; returns their paths and how many cannot be read."""
    sizes = [(8, 8), (33, 17), (300, 300), (310, 400), (640, 480), (1201, 899), (9, 700)]
    contents = [jpeg(size, seed=at, subsampling=at % 3) for at, size in enumerate(2 * sizes)]
    contents += [jpeg((90, 60), seed=number, orientation=number) for number in range(10)]
    contents += [jpeg(size, "L", at) for at, size in enumerate(sizes[:4])]
    contents += [jpeg(size, seed=at, progressive=True) for at, size in enumerate(sizes[:4])]
    contents += [jpeg((70, 50), "CMYK"), with_ids(jpeg(subsampling=0), b"RGB"), with_ids(jpeg(), b"\0\1\2")]
    contents += [two_pictures(), with_xmp_orientation(6), jpeg() + bytes(20), jpeg() + b"trailing"]
    contents += [jpeg(seed=at, quality=quality) for at, quality in enumerate((1, 30, 95, 100))]
    for odd in ("PNG", "WEBP", "BMP"):
        content = io.BytesIO()
        picture((50, 40)).save(content, odd)
        contents.append(content.getvalue())
    whole = jpeg((100, 80), seed=5)
    broken = [whole[:-2], whole[:-300], whole[:200], whole[:20], b"\xff\xd8\xff", b"", b"text", b"\xff\xd8\xff\xd9"]
    contents += broken
    paths = []
    for place in np.random.default_rng(0).permutation(len(contents)):
        paths.append(folder / f"{len(paths):02}.jpg")
        paths[-1].write_bytes(contents[place])
    paths.insert(7, folder / "missing.jpg")
    paths.insert(30, folder)
    return paths, len(broken) + 2
