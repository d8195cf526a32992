"""Videos on a web server: the end told from a cut, ranges, redirects, passwords."""

import io
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from video_files import CHUNKED, chunked, sending, video

from ssdtrt.errors import VideoError
from ssdtrt.video.decoder import Decoder
from ssdtrt.video.http_file import HttpFile

CONTENT = bytes(range(256)) * 40
LIST = b"ffconcat version 1.0\nfile a.mp4\n"


@pytest.fixture
def web(tmp_path):
    """A server that sends `CONTENT` or an MP4 in ranges, asks for a password, or sends elsewhere: (address, requests)."""
    clip = video(tmp_path / "a.mp4", 5).read_bytes()
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append((self.path, self.headers.get("Range"), self.headers.get("Authorization")))
            if self.path in ("/away", "/file"):
                self.send_response(302)
                self.send_header("Location", {"/away": "/content", "/file": "file:///etc/hostname"}[self.path])
                self.end_headers()
                return
            if self.path == "/missing":
                self.send_error(404)
                return
            content = {"/a.mp4": clip, "/list.mp4": LIST}.get(self.path, CONTENT)
            start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            self.wfile.write(content[start:])

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}", requests
        server.shutdown()
        thread.join()


def test_it_seeks_where_the_server_sends_ranges(web):
    address, requests = web
    with HttpFile(f"http://me:pass%20word@{address}/away", 5) as file:
        assert file.seekable() and file.read(10) == CONTENT[:10]
    assert requests == [("/away", None, "Basic bWU6cGFzcyB3b3Jk"), ("/content", None, None)]
    with HttpFile(f"http://{address}/content", 5) as file:
        assert file.seek(-6, io.SEEK_END) == len(CONTENT) - 6
        assert file.read(100) == CONTENT[-6:] and file.read(100) == b"" and file.tell() == len(CONTENT)
        assert file.seek(3) == 3 and file.read(4) == CONTENT[3:7]
    assert [area for _, area, _ in requests[2:]] == [None, f"bytes={len(CONTENT) - 6}-", "bytes=3-"]


def test_a_video_whose_index_is_at_its_end(web):
    with Decoder(f"http://{web[0]}/a.mp4", 5) as decoder:
        assert [frame.number for frame in decoder.frames()] == [0, 1, 2, 3, 4]


def test_a_list_that_a_server_sends_opens_no_file_of_this_machine(web, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Where a.mp4 is.
    with pytest.raises(VideoError, match="cannot be opened as a video"):
        Decoder(f"http://{web[0]}/list.mp4", 5)


@pytest.mark.parametrize(
    "path, reason", [("missing", "the server answered 404 Not Found"), ("file", "the server answered 302 ")]
)
def test_what_the_server_refuses_and_where_it_must_not_lead(web, path, reason):
    with pytest.raises(VideoError) as caught:
        Decoder(f"http://me:secret@{web[0]}/{path}", 5)
    assert str(caught.value).startswith(f"http://{web[0]}/{path} cannot be opened as a video ({reason}")


@pytest.mark.parametrize(
    "head, body, end, reason",
    [
        (CHUNKED, chunked, "close", "the connection was cut"),
        (CHUNKED, chunked, "reset", "Connection reset by peer"),
        (CHUNKED, chunked, "stall", "no data for 0.7 s; --timeout (timeout) waits longer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", bytes, "close", "the connection was closed after "),
    ],
    ids=["cut", "reset", "stalled", "too short"],
)
def test_a_connection_that_ends_early_is_told_from_the_end(head, body, end, reason, tmp_path):
    content = video(tmp_path / "a.ts", 60, codec="mpeg2video").read_bytes()
    with sending(body(content), head, end) as port, Decoder(f"http://127.0.0.1:{port}/a.ts", 0.7) as decoder:
        numbers = []
        with pytest.raises(VideoError) as caught:
            for frame in decoder.frames():
                numbers.append(frame.number)
    assert numbers == list(range(60))  # All that came, also what the decoder still had.
    assert f":{port}/a.ts broke off after frame 59 (1.967 s)" in str(caught.value) and f": {reason}" in str(
        caught.value
    )


def test_the_end_of_a_stream_is_no_failure(tmp_path):
    content = video(tmp_path / "a.ts", 60, codec="mpeg2video").read_bytes()
    with sending(chunked(content) + b"0\r\n\r\n", CHUNKED, "close") as port:
        with Decoder(f"http://127.0.0.1:{port}/a.ts", 5) as decoder:
            assert len(list(decoder.frames())) == 60
