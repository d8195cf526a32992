"""A web server on this machine whose responses the tests write themselves, byte by byte where that matters."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class WebServer:
    """What is served, and what was asked for.

    Attributes:
        pages: {path with query: bytes, or a function of the handler that writes the response}.
        requests: The (path, headers) of each request.
    """

    def __init__(self, httpd):
        self.httpd, self.pages, self.requests, self.leave = httpd, {}, [], threading.Event()

    def address(self, path="", user="", host=None):
        own, port = self.httpd.server_address
        return f"http://{user}{host or own}:{port}{path}"

    def redirect(self, path, location, status=302):
        self.pages[path] = lambda handler: respond(handler, b"", status, Location=location)

    @property
    def paths(self):
        return [path for path, _ in self.requests]


def respond(handler, content=b"", status=200, length=None, **headers):
    """Write a response; `length` is what Content-Length says, by default what is sent, False for none."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    if length is not False:
        handler.send_header("Content-Length", str(len(content) if length is None else length))
    handler.end_headers()
    handler.wfile.write(content)
    handler.close_connection = True


@contextlib.contextmanager
def serving(host="127.0.0.1"):
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.server.web.requests.append((self.path, dict(self.headers)))
            page = self.server.web.pages.get(self.path)
            with contextlib.suppress(OSError):  # The client may be gone.
                if callable(page):
                    page(self)
                else:
                    respond(self, page or b"", 404 if page is None else 200)
            self.close_connection = True

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        block_on_close = True
        daemon_threads = False
        request_queue_size = 64

    with Server((host, 0), Handler) as httpd:
        httpd.web = WebServer(httpd)
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield httpd.web
        finally:
            httpd.web.leave.set()
            httpd.shutdown()
            thread.join()


@pytest.fixture
def web():
    """A web server for this test."""
    with serving() as server:
        yield server
