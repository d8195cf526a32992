"""What a request's body may be, and with which status the others are refused."""

import asyncio
import json

import pytest

pytest.importorskip("starlette", reason="needs the extra ray")

from starlette.requests import ClientDisconnect, Request

from ssdtrt.serving.service.records import ServiceOptions
from ssdtrt.serving.service.uploads import Refused, Upload, read_uploads, within

OPTIONS = ServiceOptions(url="", max_bytes=300_000, max_pictures=2)
FORM = "multipart/form-data; boundary=cut"
BAD_NAME = b"--cut\r\nContent-Disposition: form-data; filename*=a\0b''x\r\n\r\n\r\n"
FIELD = b'--cut\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'

# Parts in parts; read as mail they take as long as their number times that of the lines.
NESTED = b"".join(
    b"--%s\r\nContent-Type: multipart/mixed; boundary=%d\r\n\r\n" % (b"%d" % (depth - 1) if depth else b"cut", depth)
    for depth in range(3000)
) + b"\r\n"  # fmt: skip


def request(*chunks, method="POST", ends=True, **headers):
    """A request whose body comes in these chunks, and what it still holds when it has been read."""
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.request", "body": b""} if ends else {"type": "http.disconnect"})
    names = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": "/detect", "headers": names, "query_string": b""}

    async def receive():
        return messages.pop(0)

    return Request(scope, receive), messages


def read(*chunks, **options):
    return asyncio.run(read_uploads(request(*chunks, **options)[0], OPTIONS))


def form(*files, end=b"--cut--\r\n"):
    parts = (
        b"--cut\r\nContent-Disposition: form-data; name=a; filename=" + name + b"\r\n\r\n" + content + b"\r\n"
        for name, content in files
    )
    return b"".join(parts) + end


def test_a_body_is_a_picture():
    assert read(b"ab", b"", b"c") == [Upload("", b"abc")]
    assert read(b"abc", content_type="application/x-www-form-urlencoded", content_encoding="identity") == [
        Upload("", b"abc")
    ]


def test_a_form_has_several():
    every_byte = bytes(range(256)) + b"\r\n\n\r-cut\n\r\n"
    found = read(form((b"a.jpg", every_byte), (b'"b c.png"', b"")), content_type=FORM)
    assert found == [Upload("a.jpg", every_byte), Upload("b c.png", b"")]


def test_names_are_the_clients():
    names = ["été.jpg", "图 2.jpg", "a%22b.jpg"]  # As browsers send them.
    found = read(form(*[(f'"{name}"'.encode(), b"x") for name in names[:2]]), content_type=FORM)
    found += read(form((f'"{names[2]}"'.encode(), b"x")), content_type=FORM)
    assert [one.name for one in found] == names


def test_a_part_in_base64():
    head = b"--cut\r\nContent-Disposition: form-data; filename=a\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    assert read(head + b"YWJj\r\n--cut--\r\n", content_type=FORM) == [Upload("a", b"abc")]


def test_a_line_that_begins_as_the_boundary_does_is_content():
    content = b"x\r\n--cutting\r\n-- cut\r\n"
    assert read(form((b"a", content)), content_type=FORM) == [Upload("a", content)]


def test_fields_of_a_form_that_are_no_files_are_left_out():
    assert read(FIELD + form((b"a", b"x")), content_type=FORM) == [Upload("a", b"x")]


@pytest.mark.parametrize(
    "status, message, chunks, options",
    [
        (405, "GET is not possible here; POST a picture.", [], {"method": "GET"}),
        (415, "The body is encoded as 'gzip'; send the picture's file as it is.", [b"a"], {"content_encoding": "gzip"}),
        (413, "The body has more than 300,000 bytes; send a smaller picture.", [b"a"], {"content_length": "300001"}),
        (413, "The body has more than 300,000 bytes; send a smaller picture.", [b"a" * 200_000, b"a" * 200_000], {}),
        (400, "The body is empty; expected a picture.", [], {}),
        (400, "The form has no file; expected one or more pictures.", [FIELD + form()], {"content_type": FORM}),
        (400, "The form is damaged or incomplete; send it as multipart/form-data.", [form((b"a", b"x"), end=b"")],
         {"content_type": FORM}),
        (400, "The form is damaged or incomplete; send it as multipart/form-data.", [b"abc"],
         {"content_type": "multipart/form-data"}),
        (413, "The form has 3 files; at most 2 are taken at once.", [form(*[(b"a", b"x")] * 3)],
         {"content_type": FORM}),
        (400, "The form has no file; expected one or more pictures.", [NESTED + form()], {"content_type": FORM}),
        (400, "The form is damaged or incomplete; send it as multipart/form-data.", [form((b"a\r\n" + b"x" * 9000, b""))],
         {"content_type": FORM}),
        (400, "The form is damaged or incomplete; send it as multipart/form-data.", [BAD_NAME + form()],
         {"content_type": FORM}),
        (413, "The form has 1,001 parts; at most 1,000 are read.", [FIELD * 1001 + form()], {"content_type": FORM}),
    ],
    ids=["method", "encoding", "length", "chunks", "empty", "no file", "cut off", "no boundary", "too many", "nested",
         "long head", "bad name", "many parts"],
)  # fmt: skip
def test_what_is_refused(status, message, chunks, options):
    with pytest.raises(Refused) as refused:
        read(*chunks, **options)
    response = refused.value.response()
    assert (refused.value.status, response.status_code) == (status, status)
    assert json.loads(response.body) == {"schema": 1, "kind": "service-error", "error": message}
    assert "connection" not in response.headers  # One that is closed cannot be read from while a client still sends.
    assert (response.headers.get("allow") == "POST") == (status == 405)


def test_a_body_that_is_announced_too_large_is_not_read():
    one, left = request(b"a", content_length="300001")
    with pytest.raises(Refused):
        asyncio.run(read_uploads(one, OPTIONS))
    assert len(left) == 2


def test_a_client_that_goes_away():
    with pytest.raises(ClientDisconnect):
        read(b"abc", ends=False)


def test_what_takes_too_long_is_ended():
    ended = []

    async def work():
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    with pytest.raises(Refused, match="slow") as refused:
        asyncio.run(within(0.01, work(), Refused(408, "slow")))
    assert (refused.value.status, ended) == (408, [True])
    assert asyncio.run(within(1, asyncio.sleep(0, "done"), Refused(408, "slow"))) == "done"
