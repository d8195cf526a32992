"""Pictures read ahead: the same by threads and by processes, in order, bounded, and the unreadable ones in their places."""

import io
import os
import time

import numpy as np
import pytest
import torch
from jpeg_files import jpeg
from PIL import Image

from ssdtrt.errors import ImageError
from ssdtrt.images.decode import load_image
from ssdtrt.images.jpeg import EncodedJpeg
from ssdtrt.images.preprocess import resize_image
from ssdtrt.images.upload import to_device
from ssdtrt.reading.addresses import PUBLIC, AddressRules
from ssdtrt.reading.reader import PictureNotes, PictureReader, PreparedPicture, readable

CPU = torch.device("cpu")
needs_processes = pytest.mark.skipif(os.name != "posix", reason="files are handed to processes as on POSIX")


@pytest.fixture
def mixed(tmp_path):
    """Paths of pictures: small, of the network's size, broken, one turned, too many pixels, too long, and small again."""
    random = np.random.default_rng(0)
    sizes = [(64, 48), (300, 300), None, (48, 64), (700, 650), (1300, 20), (64, 48)]
    paths = [tmp_path / f"{number}.png" for number in range(len(sizes))]
    for number, (path, size) in enumerate(zip(paths, sizes)):
        if size is None:
            path.write_text("no picture")
            continue
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 3 else 1
        pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, exif=exif)
    return paths


def reader(preprocess="eval", orient=True):
    return PictureReader(preprocess, orient, workers=2, ahead=4)


def by_processes(paths, resize_on_device=False, **settings):
    """What processes read, its pixels copied and its slots released at once."""
    found = []
    for one in reader(**settings).with_processes(paths, 1, CPU, resize_on_device):
        if not isinstance(one, ImageError):
            found.append((one.index, one.name, one.size, one.pixels.copy()))
            one.release()
    return found


@needs_processes
@pytest.mark.parametrize("orient", [True, False])
@pytest.mark.parametrize("preprocess", ["eval", "hub"])
def test_both_ways_read_the_same(mixed, preprocess, orient):
    settings = {"preprocess": preprocess, "orient": orient}
    threads = list(readable(reader(**settings).with_threads(mixed), []))
    processes = by_processes(mixed, **settings)
    assert [one.index for one in threads] == [0, 1, 3, 4, 5, 6]
    assert [one.name for one in threads] == [str(mixed[one.index]) for one in threads]
    assert threads[2].size == ((64, 48) if orient else (48, 64))
    for one, (index, name, size, pixels) in zip(threads, processes, strict=True):
        assert (one.index, one.name, one.size) == (index, name, size)
        assert np.array_equal(one.pixels, pixels)
        assert np.array_equal(one.pixels, resize_image(load_image(name, orient=orient), preprocess))


@needs_processes
def test_pictures_keep_their_size_only_where_the_device_resizes_them(mixed, monkeypatch):
    """The third is turned; the fourth has too many pixels and the fifth is too long."""
    shapes = [pixels.shape[:2] for *_, pixels in by_processes(mixed, resize_on_device=True)]
    assert shapes == [(48, 64), (300, 300), (48, 64), (300, 300), (300, 300), (48, 64)]
    for found in (by_processes(mixed), by_processes(mixed, resize_on_device=True, preprocess="hub")):
        assert {pixels.shape[:2] for *_, pixels in found} == {(300, 300)}
    monkeypatch.setattr("ssdtrt.reading.reader.order_of_passes", lambda: None)  # A Pillow that is not known.
    assert {pixels.shape[:2] for *_, pixels in by_processes(mixed, resize_on_device=True)} == {(300, 300)}


def test_a_picture_is_kept_where_that_is_asked_for_and_where_it_cannot_be_read_again(mixed):
    pictures = [mixed[0], Image.open(mixed[0]), io.BytesIO(mixed[0].read_bytes()), np.asarray(Image.open(mixed[0]))]
    kept = list(readable(reader().with_threads(pictures, keep=True), None))
    assert [one.name for one in kept] == [str(mixed[0]), "", "", ""]
    assert [one.source.size for one in kept] == [(64, 48)] * 4
    pictures[2].seek(0)
    given = [one.source for one in readable(reader().with_threads(pictures), None)]
    assert all(given[place] is pictures[place] for place in (0, 1, 3)) and given[2].size == (64, 48)
    assert kept[0].release() is None  # Its pixels are its own.


@needs_processes
@pytest.mark.parametrize("way", ["with_threads", "with_processes"])
def test_the_unreadable_ones_come_in_their_places(mixed, way):
    rest = () if way == "with_threads" else (8, CPU, False)
    found = list(getattr(reader(), way)(mixed, *rest))
    assert [isinstance(one, ImageError) for one in found] == [False, False, True, False, False, False, False]
    failures = []
    assert len(list(readable(found, failures))) == 6 and failures == [found[2]]
    with pytest.raises(ImageError, match="2.png cannot be read as a picture"):
        list(readable(found, None))


@needs_processes
@pytest.mark.parametrize("way", ["with_threads", "with_processes"])
def test_no_more_is_taken_than_is_read_ahead(mixed, way):
    taken = []
    endless = (taken.append(mixed[0]) or mixed[0] for _ in range(1000))
    rest = () if way == "with_threads" else (1, CPU, False)
    stream = getattr(reader(), way)(endless, *rest)
    for number in range(3):
        next(stream).release()
        assert len(taken) <= number + 1 + 4
    stream.close()
    assert len(taken) <= 3 + 4


@needs_processes
@pytest.mark.parametrize("way", ["with_threads", "with_processes"])
def test_ranges_limits_and_notes_go_everywhere(tmp_path, way):
    """The same values, refusals and notes whoever reads; a picture of 12 bits and one of too many pixels."""
    rest = () if way == "with_threads" else (9, CPU, False)
    Image.fromarray(np.full((20, 30), 2000, np.uint16)).save(tmp_path / "deep.png")
    Image.new("L", (31, 20)).save(tmp_path / "large.png")
    paths = [tmp_path / "deep.png", tmp_path / "large.png"]
    deep, large = getattr(reader(), way)(paths, *rest)
    assert (deep.pixels == 125).all() and not large.notes  # 2000 of 4095
    assert [note.partition(",")[0] for note in deep.notes] == ["its values of more than 8 bits are read as 0..4095"]
    settings = PictureReader("eval", True, workers=2, ahead=4, value_range=(1000, 3000), max_pixels=600)
    deep, large = getattr(settings, way)(paths, *rest)
    assert (deep.pixels == 128).all() and deep.notes == ()
    assert str(large).startswith(f"{paths[1]} cannot be read as a picture (it has more than 600 pixels; --max-pixels")


@needs_processes
def test_addresses_are_read_by_threads_and_processes_alike(mixed, web):
    """Pictures, what is none, what is not there, what is too large, and a file among them; without the rules none."""
    for place in (0, 2, 3, 4):
        web.pages[f"/{place}.png?x=1"] = mixed[place].read_bytes()
    given = [web.address(f"/{place}.png?x=1", user="me:secret@") for place in (0, 2, 3, 4, 5)]
    given.insert(2, str(mixed[1]))
    rules = AddressRules(allow_private=True, max_bytes=mixed[3].stat().st_size, timeout=5)
    settings = PictureReader("eval", True, workers=2, ahead=4, addresses=rules)
    threads, processes = list(settings.with_threads(given)), list(settings.with_processes(given, 9, CPU, False))
    assert [type(one) for one in threads] == [type(one) for one in processes]
    for one, other in zip(threads, processes):
        if isinstance(one, ImageError):
            assert str(one) == str(other) and "secret" not in str(one)
            continue
        assert (one.index, one.name, one.size) == (other.index, other.name, other.size)
        assert np.array_equal(one.pixels, other.pixels)
    assert [one.name for one in (threads[0], threads[2])] == [web.address("/0.png?x=1"), str(mixed[1])]
    said = [str(one).partition(" cannot be ")[2] for one in threads if isinstance(one, ImageError)]
    assert [text[:31] for text in said] == [
        "read as a picture (it is empty,", f"fetched (it has more than {rules.max_bytes:,}", "fetched (the server answered 404"[:31]
    ]  # fmt: skip
    assert sorted(web.paths) == sorted([f"/{place}.png?x=1" for place in (0, 2, 3, 4, 5)] * 2)
    closed = PictureReader("eval", True, workers=2, ahead=4)
    web.requests.clear()
    for way, rest in (("with_threads", ()), ("with_processes", (9, CPU, False))):
        (one,) = getattr(closed, way)(given[:1], *rest)
        assert isinstance(one, ImageError) and "--allow-private" in str(one)
    assert not web.requests


def test_leaving_early_does_not_wait_for_servers(web, mixed):
    web.pages["/0.png"], web.pages["/slow"] = mixed[0].read_bytes(), lambda handler: web.leave.wait(20)
    rules = PUBLIC._replace(allow_private=True)
    stream = PictureReader("eval", True, 2, 4, addresses=rules).with_threads(
        [web.address("/0.png"), *[web.address("/slow")] * 9]
    )
    assert next(stream).size == (64, 48)
    begun = time.monotonic()
    stream.close()
    assert time.monotonic() - begun < 3


@needs_processes
def test_jpegs_for_a_gpu_are_the_same_from_threads_and_processes(mixed, tmp_path):
    """Files with the size and orientation that they are turned to, and everything else as without; paths alone."""
    contents = [jpeg(orientation=6), jpeg((30, 20), "L"), jpeg()[:-9], jpeg(mode="CMYK")]
    paths = [*mixed, *(tmp_path / f"{number}.jpg" for number in range(4))]
    for path, content in zip(paths[-4:], contents):
        path.write_bytes(content)
    for orient in (True, False):
        one = PictureReader("eval", orient, workers=2, ahead=4, jpegs=True)
        ways = [], []
        for way, found in zip((one.with_threads(paths), one.with_processes(paths, 99, CPU, False)), ways):
            for read in way:
                if isinstance(read, ImageError):
                    found.append(str(read))
                    continue
                pixels = read.pixels
                is_jpeg = isinstance(pixels, EncodedJpeg)
                shown = (bytes(pixels.data), pixels.stored, pixels.orientation) if is_jpeg else pixels.tobytes()
                found.append((read.index, read.name, read.size, shown))
        assert ways[0] == ways[1] and len(ways[0]) == 11 and isinstance(ways[0][9], str)
        turned, gray = ways[0][7:9]
        assert turned[2:] == (
            ((48, 64), (contents[0], (64, 48), 6)) if orient else ((64, 48), (contents[0], (64, 48), 1))
        )
        assert gray[2:] == ((30, 20), (contents[1], (30, 20), 1))
        image, open_file = one.with_threads([Image.open(paths[7]), io.BytesIO(contents[0])])
        assert {type(image.pixels), type(open_file.pixels)} == {np.ndarray}
    left = one.with_pillow(PreparedPicture(4, "", (64, 48), EncodedJpeg("", (64, 48)), str(paths[7])))
    assert left.index == 4 and np.array_equal(left.pixels, resize_image(load_image(paths[7], orient=False)))


def test_notes_are_told_once_each_and_not_without_end():
    told = []
    notes = PictureNotes(told.append)
    for number in range(30):
        texts = ("same", "same") if number < 10 else ("same", f"note {number}")
        notes.tell(PreparedPicture(number, "" if number % 2 else f"{number}.png", (1, 1), np.zeros(1), "", notes=texts))
    assert told[:3] == ["0.png: same.", "10.png: note 10.", "picture 12: note 11."]
    assert len(told) == 11 and told[-1] == "There are notes on more pictures."


# Pictures in memory


def in_memory(count=4):
    """RGB arrays of several sizes, one of them upside down and mirrored, one too large to be resized on a device."""
    random = np.random.default_rng(0)
    sizes = [(64, 48), (300, 300), (48, 64), (700, 650)][:count]
    arrays = [random.integers(0, 256, (height, width, 3), dtype=np.uint8) for width, height in sizes]
    arrays[0] = arrays[0][::-1, ::-1, ::-1]
    return arrays


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("preprocess", ["eval", "hub"])
def test_at_once_gives_what_threads_give(preprocess, whole, keep):
    arrays = in_memory()
    gray, clear = arrays[1][..., 0], np.dstack([arrays[2], arrays[2][..., :1]])
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(arrays[2])
    turned.info["exif"] = exif.tobytes()
    tensor = torch.from_numpy(arrays[3]).permute(2, 0, 1)
    pictures = [
        *arrays,
        tensor,
        gray[..., None],
        gray,
        clear,
        Image.fromarray(arrays[1]),
        turned,
        Image.fromarray(gray),
    ]
    expected = list(reader(preprocess).with_threads(pictures, keep))
    found = list(reader(preprocess).at_once(pictures, keep, whole))
    sizes = {one.pixels.shape[:2] for one in found}
    assert sizes == ({(300, 300), (48, 64), (64, 48)} if whole and preprocess == "eval" else {(300, 300)})
    for one, other in zip(found, expected):
        assert (one.index, one.name, one.size) == (other.index, other.name, other.size)
        assert type(one.source) is type(other.source) and (not keep or isinstance(one.source, Image.Image))
        image = to_device([one.pixels], CPU)[0].permute(1, 2, 0).numpy()
        assert np.array_equal(image, other.pixels)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((48, 64, 3), np.float32),
        np.zeros((3, 48, 64), np.uint8),
        np.zeros((0, 64, 3), np.uint8),
        np.zeros((2, 3, 48, 3), np.uint8),
        np.zeros(3, np.uint8),
        np.zeros((48, 64, 2), np.uint8),
        torch.zeros(3, 48, 64),
    ],
)
def test_what_is_wrong_with_an_array_is_said_in_its_place(bad, whole):
    good = in_memory(1)[0]
    found = list(reader().at_once([good, bad, good], resize_on_device=whole))
    expected = list(reader().with_threads([good, bad, good]))
    assert [type(one) for one in found] == [type(one) for one in expected]
    assert isinstance(found[1], ImageError) and str(found[1]) == str(expected[1])
    assert [found[0].index, found[2].index] == [0, 2]


def test_an_array_stays_the_callers():
    array = in_memory(3)[2]
    before = array.copy()
    (found,) = reader().at_once([array], resize_on_device=True)
    assert np.shares_memory(found.pixels, array) and not found.pixels.flags.writeable
    assert array.flags.writeable and np.array_equal(array, before)


def test_which_lists_gain_nothing_from_threads(mixed, monkeypatch):
    arrays = in_memory()
    small, large = arrays[0], arrays[3]
    few = reader().few_in_memory
    assert few([], 1) and few([large], 1) and few((small, small), 2) and few(np.stack([small, small]), 2)
    assert few([Image.fromarray(small)], 1) and few([small[..., 0]], 1) and few([np.zeros(3)], 1)
    assert not few([small, small], 1) and few([small] * 9, 1, True) and not few([small, large], 1, True)
    assert few([small, np.zeros(3), Image.fromarray(small)], 1, True)
    tensors = [torch.from_numpy(each.copy()).permute(2, 0, 1) for each in (small, large)]
    assert few(tensors[:1] * 9, 1, True) and not few(tensors, 1, True) and few([torch.zeros(3)] * 2, 1, True)
    assert not reader("hub").few_in_memory([small, small], 1, True)
    with Image.open(mixed[0]) as opened:
        for other in (mixed[0], str(mixed[0]), opened, io.BytesIO()):
            assert not few([small, other], 9, True)
    assert not few(iter([small]), 9, True) and not few(None, 9)
    monkeypatch.setattr("ssdtrt.reading.reader.order_of_passes", lambda: None)  # A Pillow that is not known.
    assert not few([small, small], 1, True)
