"""JPEGs among other pictures, decoded on a device: in order, with Pillow for what it refuses, slots let go once."""

import io
from collections import Counter

import numpy as np
import pytest
import torch
from jpeg_files import jpeg, write_all

from ssdtrt.errors import GpuError, ImageError
from ssdtrt.images.gpu_decode import JpegDecoder
from ssdtrt.images.jpeg import EncodedJpeg
from ssdtrt.reading.device_decoding import NOT_DECODED, decode_group, decode_on_device
from ssdtrt.reading.reader import PictureReader, PreparedPicture

CPU = torch.device("cpu")


def reader(jpegs=True, **options):
    return PictureReader("eval", True, workers=2, ahead=4, jpegs=jpegs, **options)


def prepared(paths, released):
    """What a reader reads, which notes whose slots are let go."""
    for one in reader().with_threads(paths):
        if isinstance(one, PreparedPicture):
            one = PreparedPicture(
                *(one.index, one.name, one.size, one.pixels, one.source), lambda i=one.index: released.append(i)
            )
        yield one


@pytest.fixture
def decoded(tmp_path):
    """Decodes all files of a folder in groups of a size: (what came, the slots let go, the paths)."""

    def run(decoder, size=5):
        released = []
        paths, broken = write_all(tmp_path)
        found = list(decode_on_device(prepared(paths, released), decoder, reader(), size))
        assert sum(isinstance(one, ImageError) for one in found) == broken
        return found, released, paths

    return run


def assert_as_on_the_cpu(found, paths):
    """The same pictures and the same errors in the same places."""
    for one, other in zip(found, reader(jpegs=False).with_threads(paths), strict=True):
        if isinstance(other, ImageError):
            assert str(one) == str(other)
            continue
        assert (one.index, one.name, one.size) == (other.index, other.name, other.size)
        assert np.array_equal(np.asarray(one.pixels), other.pixels)


@pytest.mark.parametrize("size", [1, 5, 200])
def test_everything_comes_in_its_place(gpu_decoding, decoded, size):
    found, released, paths = decoded(JpegDecoder(CPU), size)
    assert_as_on_the_cpu(found, paths)
    on_device = [one.index for one in found if isinstance(one, PreparedPicture) and torch.is_tensor(one.pixels)]
    assert len(on_device) == 35 and sorted(released) == on_device  # Of the others the pixels are still in their slots.
    for one in found:
        if isinstance(one, PreparedPicture):
            one.release()
    assert Counter(released) == Counter(one.index for one in found if isinstance(one, PreparedPicture))


def refusing(jpegs):
    return [None] * len(jpegs)


def full(_):
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 200.00 MiB.")


@pytest.mark.parametrize("decoder", [refusing, full])
def test_what_is_refused_and_what_there_is_no_memory_for_is_pillows_and_noted(decoded, decoder):
    found, released, paths = decoded(decoder)
    assert_as_on_the_cpu(found, paths)
    noted = [one.notes for one in found if not isinstance(one, ImageError) and NOT_DECODED in one.notes]
    assert len(noted) == 35
    assert len(released) == len(set(released)) == 35


def test_of_an_open_file_that_is_pillows_no_picture_is_kept():
    file = io.BytesIO(jpeg())
    encoded = EncodedJpeg(np.frombuffer(jpeg(), np.uint8), (64, 48))
    (found,) = decode_group([PreparedPicture(0, "a.jpg", (64, 48), encoded, file)], refusing, reader())
    assert (found.name, found.size, found.notes) == ("a.jpg", (64, 48), (NOT_DECODED,))
    assert found.pixels.shape == (300, 300, 3) and found.source is file


def test_a_file_that_is_gone_or_broken_when_it_is_decoded_has_the_message_of_the_cpu(gpu_decoding, tmp_path):
    """Read whole a moment before."""
    paths = [tmp_path / f"{number}.jpg" for number in range(3)]
    group = []
    for number, path in enumerate(paths):
        path.write_bytes(jpeg())
        group.append(PreparedPicture(number, str(path), (64, 48), EncodedJpeg(str(path), (64, 48)), str(path)))
    paths[0].unlink()
    paths[2].write_bytes(b"no picture")
    gone, there, broken = decode_on_device(iter_of(group), JpegDecoder(CPU), reader(), 9)
    assert str(gone) == f"{paths[0]}: no such file."
    assert there.pixels.shape == (300, 300, 3)
    assert str(broken) == f"{paths[2]} cannot be read as a picture (it is empty, or of no format that Pillow knows)."


def iter_of(items):
    yield from items


def test_other_errors_are_raised_and_the_reading_ends(tmp_path):
    def broken(_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    (tmp_path / "a.jpg").write_bytes(jpeg())
    source = reader().with_threads([tmp_path / "a.jpg"] * 9)
    with pytest.raises(GpuError, match="illegal memory access"):
        list(decode_on_device(source, broken, reader(), 2))
    assert source.gi_frame is None  # Closed.


def test_decoding_is_timed(gpu_decoding, tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    one = reader()
    assert len(list(decode_on_device(one.with_threads([tmp_path / "a.jpg"] * 3), JpegDecoder(CPU), one, 2))) == 3
    busy = {stage.stage: stage.seconds for stage in one.times.of(1.0)}
    assert busy["decode"] > 0 and busy["read"] > 0 and busy["network"] == 0
