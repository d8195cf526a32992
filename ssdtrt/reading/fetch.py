"""Fetch pictures, keep what was fetched within bounds, and load pictures of any kind."""

from __future__ import annotations

import io
import os
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from ssdtrt import config
from ssdtrt.errors import ImageError
from ssdtrt.images.decode import load_image
from ssdtrt.reading.addresses import PUBLIC, AddressRules, is_address, shown
from ssdtrt.reading.exchange import Exchange, Refused, late

Other = TypeVar("Other")

_kept: weakref.WeakSet[Fetched] = weakref.WeakSet()
_kept_lock = threading.Lock()


class Fetched(io.BytesIO):
    """A picture that was fetched: an open file in memory.

    Attributes:
        address: Where from.
        name: The same, without a user name and password.
    """

    def __init__(self, address: str, content: bytes):
        super().__init__(content)
        self.address, self.name, self.size = address, shown(address), len(content)

    def to_keep(self) -> Fetched | str:
        """Return itself while there are few bytes of all that are kept, else its address, to be fetched again."""
        with _kept_lock:
            _kept.add(self)
            if sum(one.size for one in _kept) <= config.KEPT_BYTES:
                return self
            _kept.discard(self)
            return self.address


class Fetcher:
    """Fetches pictures. Threads may share it.

    No proxy is used: whom a proxy asks cannot be checked. Nothing is tried twice.

    Args:
        rules: What may be fetched.
    """

    def __init__(self, rules: AddressRules = PUBLIC):
        self._rules, self._lock = rules, threading.Lock()
        self._running: set[Exchange] = set()
        self._cancelled = False

    def opened(self, picture: Other) -> Other | Fetched:
        """Return a picture that is given by its address as a file of its own in memory, and any other as it is.

        Raises:
            ImageError: As `fetch`.
        """
        if isinstance(picture, Fetched):
            return Fetched(picture.address, picture.getvalue())  # The bytes are shared, the place in them is not.
        return self.fetch(picture) if isinstance(picture, str) and is_address(picture) else picture

    def fetch(self, address: str) -> Fetched:
        """Fetch a picture.

        Args:
            address: Its http or https address. A user name and password in it are sent to that host alone.

        Raises:
            ImageError: For what is not there, not there in time, too large, not whole, or not allowed.
        """
        exchange = Exchange(address, self._rules)
        with self._lock:
            if self._cancelled:
                raise ImageError(f"{shown(address)} was not fetched: the run ended before.")
            self._running.add(exchange)
        try:
            # A thread, as the search for a host's addresses takes no time-out and many reads would each have their own.
            threading.Thread(target=exchange.run, name="ssdtrt-fetch", daemon=True).start()
            if not exchange.ended.wait(self._rules.timeout):
                exchange.end(late(self._rules))
        finally:
            exchange.end(Refused("it was cancelled"))
            with self._lock:
                self._running.discard(exchange)
        if isinstance(exchange.outcome, bytes):
            return Fetched(address, exchange.outcome)
        raise ImageError(exchange.message()) from exchange.outcome

    def cancel(self) -> None:
        """End every fetch that is running, and every later one."""
        with self._lock:
            self._cancelled = True
            running = list(self._running)
        for exchange in running:
            exchange.end(Refused("it was cancelled"))


def load_picture(picture: Any, rules: AddressRules, **options: Any) -> Image.Image:
    """Load a picture of any kind, also one that is given by its address or was fetched.

    Args:
        picture: What `load_image` takes, or an address.
        rules: What may be fetched.
        options: Those of `load_image`.

    Raises:
        ImageError: As `Fetcher.fetch` and `load_image`.
    """
    return load_image(Fetcher(rules).opened(picture), **options)


def can_be_read(picture: str | Path | Fetched) -> bool:
    """Return whether a picture is a file that is there, an address, or was fetched."""
    return isinstance(picture, Fetched) or is_address(picture) or os.path.isfile(picture)


def first_fetched(
    pictures: Sequence[str | Path], rules: AddressRules, failures: list[ImageError]
) -> list[str | Path | Fetched]:
    """Fetch the first picture where none is a file, so that a mistyped address ends a run before it begins.

    Args:
        pictures: Paths and addresses.
        rules: What may be fetched.
        failures: Takes the errors of those before the first that is there, config.FIRST_FETCHES at most.

    Returns:
        The pictures, the first address as what was fetched and without those that failed. From config.MANY_PICTURES on,
        which processes read, they are as they were.
    """
    found: list[str | Path | Fetched] = list(pictures)
    if len(found) >= config.MANY_PICTURES or any(map(os.path.isfile, pictures)):
        return found
    fetcher = Fetcher(rules)
    for address in [one for one in pictures if is_address(one)][: config.FIRST_FETCHES]:
        place = found.index(address)
        try:
            found[place] = fetcher.fetch(str(address))
            break
        except ImageError as error:
            failures.append(error)
            del found[place]
    return found
