"""How one picture is fetched: by http or https, within a size, and unless asked otherwise from public hosts alone."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import re
import socket
import ssl
import threading
from http import HTTPStatus
from typing import Any, NamedTuple, cast
from urllib.parse import quote, unquote, urljoin, urlsplit
from urllib.request import getproxies

from ssdtrt import __version__, config
from ssdtrt.reading.addresses import AddressRules, is_public, shown

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_BLOCK = 1 << 16  # bytes
_PLAIN = {"Content-Encoding": ("", "identity"), "Transfer-Encoding": ("identity", "chunked")}
_SHOWN = 200  # letters of an address that a server wrote
_SAFE = "!$%&'()*+,/:;=?@[]~"  # what stays as it is in a path and a query
_POSTSCRIPT = (
    b"%!PS",
    b"\xc5\xd0\xd3\xc6",
)  # Pillow hands it to Ghostscript, a language that strangers must not speak.


class Refused(Exception):
    """Why a picture is not fetched; its text is the reason."""


def late(rules: AddressRules) -> Refused:
    """Return the reason for a picture that is not there in time."""
    return Refused(f"it was not there within {rules.timeout:g} s; --timeout (timeout) allows more")


class _Place(NamedTuple):
    """What an address says: whom to ask, and for what."""

    scheme: str
    host: str
    port: int
    target: str

    @classmethod
    def of(cls, address: str) -> _Place:
        if not address.isprintable():
            raise ValueError
        parts = urlsplit(address)
        if parts.scheme not in _PORTS:
            raise Refused(f"{parts.scheme or 'that'} is neither http nor https")
        host = parts.hostname or ""
        # An IPv6 address was checked by `urlsplit`, but for what is behind a %.
        ascii_host = host if ":" in host else host.encode("idna").decode() if host else ""
        if not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", ascii_host):
            raise Refused("it has no valid name of a host")
        path, query = (quote(part, _SAFE) for part in (parts.path or "/", parts.query))
        return cls(parts.scheme, ascii_host, parts.port or _PORTS[parts.scheme], f"{path}?{query}" if query else path)

    @property
    def origin(self) -> tuple[str, str, int]:
        return self[:3]

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.target}"


class Exchange:
    """Requests and responses until a picture is there, with one outcome: its bytes, or what went wrong.

    Args:
        address: The picture's address.
        rules: What may be fetched; the time-out is the caller's to keep, by `end`.

    Attributes:
        ended: Whether there is an outcome.
        outcome: The outcome.
    """

    def __init__(self, address: str, rules: AddressRules):
        self._address, self._rules, self._lock = address, rules, threading.Lock()
        self._redirected = ""
        self._socket: socket.socket | None = None
        self.ended, self.outcome = threading.Event(), cast("bytes | Exception", b"")

    def run(self) -> None:
        """Fetch the picture."""
        try:
            self.end(self._follow())
        except Exception as error:
            self.end(error)

    def end(self, outcome: bytes | Exception) -> None:
        """Set the outcome unless there is one, and end what is going on in another thread."""
        with self._lock:
            if not self.ended.is_set():
                self.outcome = outcome
                self.ended.set()
            if self._socket is not None:
                with contextlib.suppress(OSError):  # It is closed, or not connected.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def message(self) -> str:
        """Return what went wrong, in a line that shows neither a password nor what the server wrote."""
        error, name = cast(Exception, self.outcome), shown(self._address)
        if isinstance(error, Refused):
            reason = str(error)
        elif isinstance(error, ssl.SSLCertVerificationError):
            reason = f"its certificate: {error.verify_message}"
        elif isinstance(error, ssl.SSLError):
            reason = f"TLS: {(error.reason or 'failed').replace('_', ' ').lower()}"
        elif isinstance(error, TimeoutError) and error.errno is None:  # Of the socket, a moment before the caller's.
            reason = str(late(self._rules))
        elif isinstance(error, OSError):
            proxies = "; proxies are not used" if {"http", "https", "all"} & set(getproxies()) else ""
            reason = f"{error.strerror or 'the connection broke off'}{proxies}"
        elif isinstance(error, http.client.IncompleteRead):
            reason = "the connection broke off before the end"
        elif isinstance(error, http.client.HTTPException):
            reason = "the response is not that of a web server"
        elif isinstance(error, ValueError):
            reason, name = "it is no valid address", shown(re.sub("://.*@", "://", self._address))
        else:
            raise error  # A fault of ours.
        return f"{name} cannot be fetched ({reason}{self._redirected})."

    def _follow(self) -> bytes:
        """Return the picture, after redirects."""
        place = _Place.of(self._address)
        origin, headers = place.origin, _authorization(self._address)
        for _ in range(config.MAX_REDIRECTS + 1):
            headers = headers if place.origin == origin else {}
            content, location = self._get(place, headers)
            if location is None:
                return content
            target = quote(urljoin(str(place), location), _SAFE + "#", "latin-1")  # As http.client decodes headers.
            # What is behind a ? may be a key that the server gave.
            self._redirected = f"; redirected to {shown(target).partition('?')[0][:_SHOWN]}"
            place = _Place.of(target)
        raise Refused(f"more than {config.MAX_REDIRECTS} redirects")

    def _get(self, place: _Place, headers: dict[str, str]) -> tuple[bytes, str | None]:
        """Send a request; return the content, or where the server redirects to."""
        with self._connected(place) as connected:
            connection = http.client.HTTPConnection(place.host, place.port)
            connection.default_port, connection.sock = _PORTS[place.scheme], connected
            connection.request(
                "GET", place.target, headers={"User-Agent": f"ssdtrt/{__version__}", "Connection": "close", **headers}
            )
            with connection.getresponse() as response:
                location = response.headers["Location"]
                if response.status in _REDIRECTS and location is not None:
                    return b"", location
                if response.status != HTTPStatus.OK:
                    raise Refused(f"the server answered {_status(response.status)}")
                return self._content(response), None

    def _content(self, response: http.client.HTTPResponse) -> bytes:
        """The content of a response, whole and not too large."""
        most, expected = (
            self._rules.max_bytes,
            response.length,
        )  # None where it is in chunks or ends with the connection.
        for name, plain in _PLAIN.items():
            if response.headers.get(name, "identity").strip().lower() not in plain:
                raise Refused("the server compressed it, which it was not asked for")
        content = bytearray()
        # `read` would take a chunk that says it has -1 bytes for all that ever comes.
        while max(len(content), expected or 0) <= most and (block := response.read1(_BLOCK)):
            content += block
        if max(len(content), expected or 0) > most:
            raise Refused(f"it has more than {most:,} bytes; --max-bytes (max_bytes) allows more")
        if expected is not None and len(content) < expected:
            raise Refused(f"the connection broke off after {len(content):,} of {expected:,} bytes")
        if content.startswith(_POSTSCRIPT):
            raise Refused("PostScript is read from files alone")
        return bytes(content)

    def _connected(self, place: _Place) -> socket.socket:
        """A socket that is connected with a host which may be asked."""
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        for number, (family, kind, protocol, _, target) in enumerate(found, 1):
            self._check(str(target[0]))  # No connection is begun, whose success would tell something.
            patience = self._rules.timeout / (len(found) - number + 1)
            try:
                return self._connect(socket.socket(family, kind, protocol), target, place, patience)
            except OSError:
                if number == len(found):
                    raise
        raise OSError("no address")

    def _connect(self, new: socket.socket, target: Any, place: _Place, patience: float) -> socket.socket:
        try:
            if place.scheme == "https":
                new = _tls().wrap_socket(new, server_hostname=place.host, do_handshake_on_connect=False)
            with self._lock:
                if self.ended.is_set():
                    raise Refused("it was cancelled")
                self._socket = new
            new.settimeout(patience)
            new.connect(target)
            self._check(new.getpeername()[0], new.getsockname()[0])  # Whom is asked, whatever a name stood for before.
            new.settimeout(self._rules.timeout)
            if isinstance(new, ssl.SSLSocket):
                new.do_handshake()
            return new
        except BaseException:
            new.close()
            raise

    def _check(self, host: str, own: str = "") -> None:
        """Refuse a host, by its IP address, that is not public, or that is this machine by a public address."""
        if not self._rules.allow_private and (not is_public(host) or host == own):
            raise Refused(
                "its host is on this machine or in a private network; --allow-private (allow_private) fetches from there"
            )


@functools.cache
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _authorization(address: str) -> dict[str, str]:
    """The header with the user name and password of an address."""
    user, at, _ = urlsplit(address).netloc.rpartition("@")
    name, _, password = user.partition(":")
    words = f"{unquote(name)}:{unquote(password)}".encode()
    return {"Authorization": f"Basic {base64.b64encode(words).decode()}"} if at else {}


def _status(code: int) -> str:
    """A status in Python's words, not in the server's."""
    return f"{code} {HTTPStatus(code).phrase}" if code in HTTPStatus._value2member_map_ else str(code)
