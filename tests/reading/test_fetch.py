"""What was fetched: how it is loaded, how much of it is kept, and how a fetch is cancelled."""

import gc
import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from ssdtrt import config
from ssdtrt.errors import ImageError
from ssdtrt.reading.addresses import PUBLIC, AddressRules
from ssdtrt.reading.fetch import Fetched, Fetcher, can_be_read, first_fetched, load_picture

ANY = AddressRules(allow_private=True, timeout=5)


def test_any_picture_is_loaded(web, pictures):
    path = pictures("red.png")
    web.pages["/a.png"] = path.read_bytes()
    expected = Image.open(path).tobytes()
    fetched = Fetcher(ANY).opened(web.address("/a.png", user="me:secret@"))
    assert (fetched.name, fetched.read(4)) == (web.address("/a.png"), b"\x89PNG")
    for picture in (path, str(path), Image.open(path), web.address("/a.png"), fetched, fetched):
        assert load_picture(picture, ANY).tobytes() == expected
    assert fetched.tell() == 4 and web.paths == ["/a.png"] * 2  # What was fetched is not fetched again.
    with pytest.raises(ImageError, match="--allow-private"):
        load_picture(web.address("/a.png"), PUBLIC)
    file = io.BytesIO()
    assert Fetcher(ANY).opened(file) is file
    web.pages["/text"] = b"no picture"
    with pytest.raises(ImageError) as caught:
        load_picture(web.address("/text", user="me:secret@"), ANY)
    address = web.address("/text")
    assert (
        str(caught.value) == f"{address} cannot be read as a picture (it is empty, or of no format that Pillow knows)."
    )


def test_what_is_kept_is_bounded(monkeypatch):
    gc.collect()
    monkeypatch.setattr(config, "KEPT_BYTES", 100)
    first, second, third = (Fetched(f"http://me@host/{number}", bytes(40)) for number in range(3))
    assert first.to_keep() is first and second.to_keep() is second
    assert third.to_keep() == "http://me@host/2"
    assert first.to_keep() is first  # It is not counted twice.
    del first
    gc.collect()
    assert third.to_keep() is third


def test_a_fetch_is_cancelled_and_so_are_those_to_come(web):
    asked = threading.Event()
    web.pages["/a.jpg"] = lambda handler: asked.set() or web.leave.wait(5)
    fetcher = Fetcher(ANY)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(fetcher.fetch, web.address("/a.jpg"))
        assert asked.wait(5)
        begun = time.monotonic()
        fetcher.cancel()
        assert "cannot be fetched (it was cancelled)" in str(running.exception())
        assert time.monotonic() - begun < 2
    with pytest.raises(ImageError, match=r"^http://host/a was not fetched: the run ended before.$"):
        fetcher.fetch("http://me@host/a")
    assert len(web.requests) == 1


def test_the_first_address_is_fetched_where_there_is_no_file(web, pictures):
    path = pictures("red.png")
    web.pages["/a"], web.pages["/b"] = b"a", b"b"
    a, b, none = (web.address(f"/{name}") for name in ("a", "b", "none"))

    def first(*given):
        failures = []
        web.requests.clear()
        found = first_fetched(given, ANY, failures)
        return [one.name if isinstance(one, Fetched) else one for one in found], len(failures), web.paths

    assert first(a, b) == ([a, b], 0, ["/a"])
    assert first("no.jpg", none, a, b) == (["no.jpg", a, b], 1, ["/none", "/a"])
    assert first(none, none, none, a) == ([a], 3, ["/none"] * 3)
    assert first(a, path, none) == ([a, path, none], 0, [])
    assert first(*[a] * 200) == ([a] * 200, 0, [])  # Processes read these.
    assert first() == ([], 0, [])
    assert can_be_read(path) and can_be_read(a) and can_be_read(Fetched(a, b"")) and not can_be_read("no.jpg")
