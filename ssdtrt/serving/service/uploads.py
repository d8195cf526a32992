"""Read the pictures of a request within the service's limits, and refuse what is beyond them."""

from __future__ import annotations

import asyncio
import email.message
import email.parser
import json
import re
from collections.abc import Awaitable
from typing import NamedTuple, TypeVar, cast

from starlette.requests import Request
from starlette.responses import Response

from ssdtrt import config
from ssdtrt.serving.service.records import ServiceError, ServiceOptions

T = TypeVar("T")
_MOST_PARTS = 1000  # of a form
_LONGEST_HEAD = 8192  # bytes of what stands before the content of a part


class Refused(Exception):
    """A request that gets no detections.

    Args:
        status: The HTTP status.
        error: What was found, what was expected and what to do.
        close: Whether the connection ends with the answer, so that no more of the body is sent.
        headers: More headers of the answer.
    """

    def __init__(self, status: int, error: str, *, close: bool = False, **headers: str):
        super().__init__(error)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if close:
            self.headers["connection"] = "close"

    def response(self) -> Response:
        """Return the answer: a ServiceError as JSON."""
        content = json.dumps(ServiceError(str(self)).document()) + "\n"
        return Response(content, self.status, self.headers, "application/json")


class Upload(NamedTuple):
    """A picture that was sent.

    Attributes:
        name: The file name that it was sent with; "" for none.
        content: The bytes of its file.
    """

    name: str
    content: bytes


async def within(seconds: float, work: Awaitable[T], late: Refused) -> T:
    """Return what the work returns, if it does so in time.

    Args:
        seconds: The time.
        work: The work; it is cancelled when the time is over.
        late: What is raised then.

    Raises:
        Refused: `late`.
    """
    try:
        return await asyncio.wait_for(work, max(seconds, 0))
    except asyncio.TimeoutError:
        raise late from None


async def read_uploads(request: Request, options: ServiceOptions) -> list[Upload]:
    """Read the pictures of a request: its body is one, or a form with several.

    Args:
        request: The request, whose body is still to come.
        options: The limits.

    Returns:
        The pictures, at least one.

    Raises:
        Refused: For another path or method, for an encoding, for what is empty, too large or too many, and for a damaged form.
        ClientDisconnect: Where the client went away before the body was complete.
    """
    if request.url.path.rstrip("/") != "/detect":  # Ray Serve sends all that begins with it here.
        raise not_there(request)
    if request.method != "POST":
        raise Refused(405, f"{request.method} is not possible here; POST a picture.", allow="POST")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise Refused(415, f"The body is encoded as {encoding[:40]!r}; send the picture's file as it is.")
    body = await _read_body(request, options.max_bytes)
    if not body:
        raise Refused(400, "The body is empty; expected a picture.")
    content_type = request.headers.get("content-type", "")
    if not content_type.lower().startswith("multipart/"):
        return [Upload("", body)]
    uploads = await asyncio.to_thread(_parts, content_type, body)  # Takes up to 50 ms.
    if not uploads:
        raise Refused(400, "The form has no file; expected one or more pictures.")
    if len(uploads) > options.max_pictures:
        raise Refused(413, f"The form has {len(uploads)} files; at most {options.max_pictures} are taken at once.")
    return uploads


async def _read_body(request: Request, limit: int) -> bytes:
    """The body, of which no more than `limit` bytes are kept, whatever its header says."""
    too_large = Refused(413, f"The body has more than {limit:,} bytes; send a smaller picture.")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise too_large
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise too_large
        chunks.append(chunk)
    return b"".join(chunks)


def _parts(content_type: str, body: bytes) -> list[Upload]:
    """The files of a form. The fields that are no files are left out.

    Of a part only the head is parsed as mail: parts of a part, to any depth, would take minutes.
    """
    damaged = Refused(400, "The form is damaged or incomplete; send it as multipart/form-data.")
    boundary = (_head(f"Content-Type: {content_type}").get_boundary() or "").encode("latin-1", "replace")
    parts = re.split(rb"\r\n--" + re.escape(boundary) + rb"(?=--|[ \t]*\r\n)", b"\r\n" + body)[1:]
    end = next((place for place, part in enumerate(parts) if part.startswith(b"--")), 0)
    if end > _MOST_PARTS:
        raise Refused(413, f"The form has {end:,} parts; at most {_MOST_PARTS:,} are read.")
    split = [part.partition(b"\r\n\r\n") for part in parts[:end]]
    if not (boundary and split) or not all(blank and len(head) <= _LONGEST_HEAD for head, blank, _ in split):
        raise damaged
    found = []
    for head, _, content in split:
        described = _head(head.decode("utf-8", "replace").lstrip())
        try:
            name = described.get_filename()
        except ValueError as error:
            raise damaged from error
        if "content-transfer-encoding" in described:
            described.set_payload(content.decode("ascii", "surrogateescape"))
            content = cast(bytes, described.get_payload(decode=True))
        if name is not None:
            found.append(Upload(name, content))
    return found


def _head(text: str) -> email.message.Message:
    return email.parser.HeaderParser().parsestr(text)


def not_there(request: Request) -> Refused:
    """Return the refusal of a path that the service does not have."""
    return Refused(404, f"There is nothing at {request.url.path[:80]}; POST a picture to /detect.")


def retry_later(error: str) -> Refused:
    """Return a refusal that asks the client to try again later."""
    return Refused(503, error, retry_after=str(config.SERVE_RETRY_SECONDS))
