"""How pictures are fetched from real servers on this machine: what is refused, and what does not arrive as it should."""

import base64
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from web_server import respond, serving

from ssdtrt.errors import ImageError
from ssdtrt.reading import addresses, exchange
from ssdtrt.reading.addresses import PUBLIC, AddressRules
from ssdtrt.reading.fetch import Fetcher

ANY = AddressRules(allow_private=True, max_bytes=1000, timeout=5)
PRIVATE = "its host is on this machine or in a private network; --allow-private (allow_private) fetches from there"
loopback = pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127.0.0.0/8 on this machine")


def fetched(address, rules=ANY):
    return Fetcher(rules).fetch(address).getvalue()


def refused(address, rules=ANY):
    """Why it is not fetched: what stands in the brackets."""
    with pytest.raises(ImageError) as caught:
        Fetcher(rules).fetch(address)
    text = str(caught.value)
    name, _, reason = text.partition(" cannot be fetched (")
    assert text.isprintable() and name == addresses.shown(address) and reason.endswith(").")
    return reason[:-2]


# Which hosts


@pytest.fixture
def public(monkeypatch):
    """A server at 127.0.0.2, which counts as public here; `NAME.test` is an alias of it, or of what `names` says."""
    is_public, getaddrinfo, names = exchange.is_public, socket.getaddrinfo, {}
    monkeypatch.setattr(exchange, "is_public", lambda host: host == "127.0.0.2" or is_public(host))

    def resolve(host, port, *rest, **options):
        if host.endswith(".test"):
            answers = names.get(host, ["127.0.0.2"])
            host = answers.pop(0) if len(answers) > 1 else answers[0]
        return getaddrinfo(host, port, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with serving("127.0.0.2") as server:
        server.names = names
        yield server


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "0.0.0.0", "[::1]", "[::]",
     "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "10.0.0.1", "169.254.169.254", "[fe80::1]",
     "[fd00:ec2::254]", "224.0.0.1", "\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021"],
)  # fmt: skip
def test_a_private_host_is_asked_nothing(web, host):
    """However it is written."""
    web.pages["/a.jpg"] = b"secret"
    assert refused(web.address("/a.jpg", host=host), PUBLIC._replace(timeout=5)) == PRIVATE
    assert not web.requests


def test_a_private_host_is_asked_where_that_is_allowed(web):
    web.pages["/a%20b.jpg?c=%C3%A9"] = b"picture"
    assert fetched(web.address("/a b.jpg?c=é#part", host="localhost")) == b"picture"
    ((_, headers),) = web.requests
    assert headers["Host"] == f"localhost:{web.httpd.server_port}" and headers["Accept-Encoding"] == "identity"
    assert headers["User-Agent"].startswith("ssdtrt/") and "Authorization" not in headers


@loopback
def test_a_public_host_does_not_lead_to_a_private_one(public, web):
    web.pages["/a.jpg"] = public.pages["/a.jpg"] = b"picture"
    rules = PUBLIC._replace(timeout=5)
    assert fetched(public.address("/a.jpg"), rules) == b"picture"
    assert fetched(public.address("/a.jpg", host="name.test"), rules) == b"picture"
    for target in (
        web.address("/a.jpg"), web.address("/a.jpg", host="localhost"), "http://169.254.169.254/latest/meta-data/"
    ):  # fmt: skip
        public.redirect("/to", target)
        assert refused(public.address("/to"), rules) == f"{PRIVATE}; redirected to {target}"
    public.names["inside.test"] = ["10.1.2.3"]
    assert refused(public.address("/a.jpg", host="inside.test"), rules) == PRIVATE
    assert not web.requests


@loopback
def test_a_name_that_stands_for_another_host_later_gains_nothing(public, web):
    """The name is looked up once for each request, and the address that was checked is the one that is asked."""
    port, rules = web.httpd.server_port, PUBLIC._replace(timeout=5)
    public.names["turns.test"] = ["127.0.0.2", "127.0.0.1"]
    public.pages["/once"] = b"picture"
    assert fetched(public.address("/once", host="turns.test"), rules) == b"picture"
    public.names["turns.test"] = ["127.0.0.2", "127.0.0.1"]
    public.redirect("/again", f"http://turns.test:{port}/a.jpg")
    web.pages["/a.jpg"] = b"secret"
    assert refused(public.address("/again", host="turns.test"), rules).startswith(f"{PRIVATE}; redirected to")
    assert not web.requests


@loopback
def test_whoever_answers_is_checked(public, web, monkeypatch):
    """A connection that ends elsewhere than where it was sent, and one to this machine's own address."""

    class Diverted(socket.socket):
        def connect(self, _):
            super().connect(web.httpd.server_address)

    web.pages["/a.jpg"] = public.pages["/a.jpg"] = b"secret"
    rules = PUBLIC._replace(timeout=5)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", Diverted)
        assert refused(public.address("/a.jpg"), rules) == PRIVATE
    monkeypatch.setattr(exchange, "is_public", lambda host: True)
    assert fetched(public.address("/a.jpg"), rules) == b"secret"
    assert refused(web.address("/a.jpg"), rules) == PRIVATE  # From 127.0.0.1 to 127.0.0.1.
    assert not web.requests


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_proxies_are_not_used(web, monkeypatch, name):
    monkeypatch.setenv(name, web.address())
    web.pages["/a.jpg"] = web.pages["http://10.0.0.1/a.jpg"] = b"picture"
    assert refused("http://10.0.0.1/a.jpg", PUBLIC) == PRIVATE
    assert fetched(web.address("/a.jpg")) == b"picture" and web.paths == ["/a.jpg"]
    assert refused("http://127.0.0.1:9/a.jpg") == "Connection refused; proxies are not used"


# Which addresses


@pytest.mark.parametrize(
    "address, reason",
    [
        ("ftp://host/a.jpg", "ftp is neither http nor https"),
        ("file:///etc/passwd", "file is neither http nor https"),
        ("http://", "it has no valid name of a host"),
        ("http:///etc/passwd", "it has no valid name of a host"),
        ("http://a b/", "it has no valid name of a host"),
        ("http://a\\b/", "it has no valid name of a host"),
        ("http://a%00b/", "it has no valid name of a host"),
        ("http://[fe80::1%25lo]/", "it has no valid name of a host"),
        ("http://[::1/", "it is no valid address"),
        ("http://host:99999/", "it is no valid address"),
        ("http://host:a/", "it is no valid address"),
        ("http://ho..st/", "it is no valid address"),
        ("http://host/a\r\nHost: b", "it is no valid address"),
        ("http://host/\udcff.jpg", "it is no valid address"),
    ],
)
def test_what_is_no_address_of_a_picture(address, reason):
    assert refused(address) == reason


@pytest.mark.parametrize(
    "location, reason",
    [
        ("file:///etc/passwd", "file is neither http nor https; redirected to file:///etc/passwd"),
        ("ftp://me:secret@host/a", "ftp is neither http nor https; redirected to ftp://host/a"),
        ("/b?token=key", "the server answered 404 Not Found; redirected to {}/b"),
        ("data:image/gif;base64,R0lGOD", "data is neither http nor https; redirected to data:image/gif;base64,R0lGOD"),
        ("http://[::1", "it is no valid address"),
        ("/a\x1b[31m", "the server answered 404 Not Found; redirected to {}/a%1B[31m"),
    ],
)
def test_where_a_redirect_must_not_lead(web, location, reason):
    web.redirect("/a.jpg", location)
    assert refused(web.address("/a.jpg")) == reason.format(web.address())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed(web, status):
    web.pages["/deep/b%20c.jpg?d"] = b"picture"
    web.redirect("/deep/a.jpg", "b c.jpg?d", status)
    assert fetched(web.address("/deep/a.jpg")) == b"picture"


def test_redirects_end(web):
    for number in range(6):
        web.redirect(f"/{number}", f"/{number + 1}")
    web.pages["/6"] = b"picture"
    assert fetched(web.address("/1")) == b"picture"  # Five.
    assert refused(web.address("/0")) == f"more than 5 redirects; redirected to {web.address('/6')}"
    web.redirect("/loop", "/loop")
    web.requests.clear()
    assert refused(web.address("/loop")).startswith("more than 5 redirects") and len(web.requests) == 6


def test_a_password_goes_to_its_host_alone_and_is_not_shown(web):
    secret = "Basic " + base64.b64encode(b"me:p@ss").decode()
    web.redirect("/same", "/a.jpg")
    web.redirect("/other", web.address("/back", host="localhost"))
    web.redirect("/back", web.address("/a.jpg"))
    web.pages["/a.jpg"] = b"picture"
    for path, count in (("/same", 2), ("/other", 1)):
        web.requests.clear()
        assert fetched(web.address(path, user="me:p%40ss@")) == b"picture"
        assert [headers.get("Authorization") for _, headers in web.requests] == [secret] * count + [None] * (
            len(web.requests) - count
        )
    assert refused(web.address("/none", user="me:p%40ss@")) == "the server answered 404 Not Found"
    with pytest.raises(ImageError) as caught:  # A password with a slash, which ends the host's part.
        Fetcher(ANY).fetch("http://me:pa/ss@host/a.jpg")
    assert str(caught.value) == "http://host/a.jpg cannot be fetched (it is no valid address)."


# What arrives


def in_chunks(handler, *chunks, end=b"0\r\n\r\n"):
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for chunk in chunks:
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
    handler.wfile.write(end)


LARGE = "it has more than 1,000 bytes; --max-bytes (max_bytes) allows more"
PAGES = {
    "nothing there": (None, "the server answered 404 Not Found"),
    "a status of its own": (lambda handler: respond(handler, status=799), "the server answered 799"),
    "no content": (lambda handler: respond(handler, status=204), "the server answered 204 No Content"),
    "a redirect to nowhere": (lambda handler: respond(handler, status=302), "the server answered 302 Found"),
    "too large by its length": (lambda handler: respond(handler, length=1001) or handler.server.web.leave.wait(20), LARGE),
    "too large without one": (lambda handler: respond(handler, bytes(1001), length=False), LARGE),
    "too large in chunks": (lambda handler: in_chunks(handler, *[bytes(100)] * 11), LARGE),
    "a chunk of less than nothing": (
        lambda handler: in_chunks(handler, end=b"-1\r\n" + bytes(10**6)) or handler.server.web.leave.wait(20), LARGE
    ),
    "half": (lambda handler: respond(handler, bytes(500), length=501), "the connection broke off after 500 of 501 bytes"),
    "half in chunks": (
        lambda handler: in_chunks(handler, bytes(9), end=b"9\r\nab"), "the connection broke off before the end"
    ),
    "compressed": (
        lambda handler: respond(handler, b"x", Content_Encoding="gzip"),
        "the server compressed it, which it was not asked for",
    ),
    "compressed on its way": (
        lambda handler: respond(handler, b"x", Transfer_Encoding="gzip, chunked"),
        "the server compressed it, which it was not asked for",
    ),
    "a program": (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript is read from files alone"),
    "another protocol": (
        lambda handler: handler.wfile.write(b"SSH-2.0-\x1b[31m\r\n"), "the response is not that of a web server"
    ),
    "nothing": (lambda handler: None, "the connection broke off"),
}  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_what_does_not_arrive_as_a_picture(web, page):
    web.pages["/a.jpg"], reason = PAGES[page]
    assert refused(web.address("/a.jpg")).partition("; proxies")[0] == reason
    assert len(web.requests) == 1  # Nothing is tried twice.


@pytest.mark.parametrize(
    "page",
    [
        bytes(1000),
        lambda handler: respond(handler, bytes(1000), length=False),
        lambda handler: in_chunks(handler, *[bytes(100)] * 10),
        lambda handler: respond(handler, bytes(1000), Content_Encoding="Identity"),
    ],
)
def test_what_arrives_whole(web, page):
    web.pages["/a.jpg"] = page
    assert fetched(web.address("/a.jpg")) == bytes(1000)


def drip(handler, start, drop):
    """Write a start and then drops, each long before a time-out, until the client is gone or the test ends."""
    handler.wfile.write(start)
    while not handler.server.web.leave.wait(0.02):
        handler.wfile.write(drop)


@pytest.mark.parametrize(
    "start, drop",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n"),
        (b"HTTP/1.1 200 OK\r\na: ", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", b""),
    ],
    ids=["content", "headers", "header", "continue", "silence"],
)
def test_what_arrives_slowly_is_late(web, start, drop):
    web.pages["/a.jpg"] = lambda handler: drip(handler, start, drop)
    begun = time.monotonic()
    reason = "it was not there within 0.3 s; --timeout (timeout) allows more"
    assert refused(web.address("/a.jpg"), ANY._replace(timeout=0.3)) == reason
    assert time.monotonic() - begun < 3
    for thread in threading.enumerate():  # Nobody goes on reading.
        if thread.name == "ssdtrt-fetch":
            thread.join(3)
            assert not thread.is_alive()


def test_redirects_that_take_time_and_hosts_that_are_looked_for_are_late_too(web, monkeypatch):
    rules, late = ANY._replace(timeout=0.3), "it was not there within 0.3 s; --timeout (timeout) allows more"
    web.pages["/a.jpg"] = lambda handler: web.leave.wait(0.12) or respond(handler, status=302, Location="/a.jpg")
    assert refused(web.address("/a.jpg"), rules).startswith(late)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # It takes connections and does no TLS.
        assert refused(f"https://127.0.0.1:{silent.getsockname()[1]}/", rules) == late
    found = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found.wait(5) and [])
    assert refused("http://slow.test/a.jpg", rules) == late
    found.set()


# TLS


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """A server with a certificate for localhost that nobody knows: (port, certificate)."""
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=DNS:localhost", *files], check=True, capture_output=True
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            respond(self, b"picture")

        def log_message(self, *_):
            pass

    class Server(HTTPServer):
        def handle_error(self, *_):
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    with Server(("127.0.0.1", 0), Handler) as httpd:
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield httpd.server_port, folder / "cert.pem"
        httpd.shutdown()
        thread.join()


def test_certificates_are_checked(tls, web, monkeypatch):
    port, certificate = tls
    reason = refused(f"https://localhost:{port}/a.jpg")
    assert reason.replace("self signed", "self-signed") == "its certificate: self-signed certificate"
    assert refused(web.address("/").replace("http", "https")).startswith("TLS: ")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    exchange._tls.cache_clear()
    try:
        assert fetched(f"https://localhost:{port}/a.jpg") == b"picture"
        assert refused(f"https://127.0.0.1:{port}/a.jpg").startswith("its certificate: IP address mismatch")
        web.redirect("/a.jpg", f"https://localhost:{port}/b.jpg")
        assert fetched(web.address("/a.jpg")) == b"picture"
        assert refused(f"https://localhost:{port}/a.jpg", PUBLIC) == PRIVATE
    finally:
        exchange._tls.cache_clear()
