"""A video on a web server as a file, which tells a connection that was cut from the end of the video. FFmpeg does not."""

from __future__ import annotations

import base64
import http.client
import io
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

_HANDLERS = (
    urllib.request.ProxyHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPErrorProcessor,
    urllib.request.HTTPRedirectHandler,
    urllib.request.UnknownHandler,
)  # http and https only, also after a redirect


class HttpFile(io.RawIOBase):
    """Reads from a web server; it can seek where the server sends ranges.

    Args:
        address: http or https, with a user and password where the server asks for them.
        timeout: Seconds without data after which a read fails.

    Attributes:
        failure: Why a read failed; None before. To a reader that is the end, so that FFmpeg gives all that came.

    Raises:
        OSError: Where it cannot be opened.
    """

    def __init__(self, address: str, timeout: float):
        try:
            parts = urlsplit(address)
        except ValueError as error:
            raise OSError(str(error)) from None
        account, _, host = parts.netloc.rpartition("@")
        self._address, self._timeout = urlunsplit(parts._replace(netloc=host)), timeout
        self._headers = {"User-Agent": "ssdtrt", "Accept": "*/*"}
        self._account = base64.b64encode(unquote(account).encode()).decode()
        self._opener = urllib.request.OpenerDirector()
        for handler in _HANDLERS:
            self._opener.add_handler(handler())
        self.failure: OSError | None = None
        self._at = self._position = 0
        self._response = self._request()
        length = self._response.headers.get("Content-Length", "")
        self._size = int(length) if length.isdecimal() else None
        self._ranges = self._size is not None and self._response.headers.get("Accept-Ranges") == "bytes"

    def _request(self) -> Any:
        """The response from `_position` on."""
        headers = {**self._headers, "Range": f"bytes={self._position}-"} if self._position else self._headers
        try:
            request = urllib.request.Request(self._address, headers=headers)
            if self._account:  # Not for whom a redirect leads to.
                request.add_unredirected_header("Authorization", f"Basic {self._account}")
            response = self._opener.open(request, timeout=self._timeout)
        except urllib.error.HTTPError as error:
            error.close()
            raise OSError(f"the server answered {error.code} {error.reason}") from None
        except urllib.error.URLError as error:
            raise error.reason if isinstance(error.reason, OSError) else OSError(str(error.reason)) from None
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(str(error) or type(error).__name__) from None
        if self._position and response.status != http.client.PARTIAL_CONTENT:
            response.close()
            raise OSError("the server sent no range")
        self._at = self._position
        return response

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes, as soon as there are some; b"" at the end, and after a `failure`."""
        if self.failure is not None:
            return b""
        try:
            if self._at != self._position:
                self._response.close()
                self._response = self._request()
            data = self._response.read1(size)
            if not data and self._size is not None and self._position < self._size:
                raise OSError(f"the connection was closed after {self._position:,} of {self._size:,} bytes")
        except http.client.HTTPException:
            self.failure = OSError("the connection was cut")
            return b""
        except OSError as error:
            self.failure = error
            return b""
        self._position += len(data)
        self._at = self._position
        return data

    def seekable(self) -> bool:
        """Return whether the server sends ranges."""
        return self._ranges

    def readable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an offset, from which the next read asks the server."""
        if not self._ranges or self._size is None:
            raise io.UnsupportedOperation("the server sends no ranges")
        self._position = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence])
        return self._position

    def tell(self) -> int:
        """Return the offset."""
        return self._position

    def close(self) -> None:
        """Close the connection."""
        if not self.closed and hasattr(self, "_response"):
            self._response.close()
        super().close()
