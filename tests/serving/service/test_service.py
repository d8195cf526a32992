"""The service with its processes: one server for all of these tests, which end it."""

import asyncio
import base64
import contextlib
import http.client
import importlib.util
import itertools
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from command_line import ENVIRONMENT
from ray_clusters import ray_cluster

from conftest import ROOT, runner, script
from known import Few, known_file
from ssdtrt import config
from ssdtrt.cli import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray"),
]
OPTIONS = ("--timeout", "8", "--upload-timeout", "3", "--max-queue", "12", "--max-bytes", "12000000",
           "--max-pixels", "20000000")  # fmt: skip
OTHER_LABELS = tuple(f"other {label}" for label in config.COCO_LABELS)


def server_of(*arguments):
    return script("service_process").Server(*arguments)


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "ssdtrt", "-q", *map(str, arguments)], env=ENVIRONMENT, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def load():
    return script("service_load")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two engines that call the same objects otherwise, and pictures of which no two have the same answer."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("service")
    known_file(folder / "one.ts", network=Few)
    known_file(folder / "other.ts", network=Few, labels=OTHER_LABELS)
    (folder / "pictures").mkdir()
    for number in range(20):
        color = (230, 20, 20) if number % 2 else (20, 20, 230)
        Image.new("RGB", (200 + number, 300 - 3 * number), color).save(folder / "pictures" / f"{number:02d}.jpg")
    return folder


@pytest.fixture(scope="module")
def pictures(load, folder):
    """The pictures, and what the command detect says of each with the first engine."""
    return answers(load, folder, "one.ts")


@pytest.fixture(scope="module")
def others(load, folder):
    """The same with the other engine."""
    return answers(load, folder, "other.ts")


def answers(load, folder, engine):
    done = runner().invoke(main, ["-q", "detect", str(folder / engine), str(folder / "pictures"), "--jsonl", "-"])
    assert done.exit_code == 0
    return load.read_answers(done.stdout)


def in_thread(function):
    """What a function returns that runs an event loop: playwright has one in this thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


@pytest.fixture(scope="module")
def server(load, folder):
    with server_of(folder / "one.ts", folder, *OPTIONS) as server:
        yield server


def ask(server, method, path, body=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    with contextlib.closing(http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)) as connection:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()


def raw(server, *parts, half_close=False, pauses=()):
    """What comes back for bytes that are sent as they are, until the server closes the connection or has answered."""
    place, answer = urlsplit(server.url), b""
    with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
        with contextlib.suppress(ConnectionError):
            for part, pause in itertools.zip_longest(parts, pauses, fillvalue=0):
                connection.sendall(part)
                time.sleep(pause)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while (part := connection.recv(65536)) and not (answer := answer + part).endswith(b"}\n"):
                pass
    return answer


def test_only_this_machine_reaches_it(server):
    listening = []
    for name in ("tcp", "tcp6"):
        with open(f"/proc/net/{name}") as table:
            rows = [line.split() for line in table.readlines()[1:]]
        listening += [row[1].split(":") for row in rows if row[3] == "0A"]
    assert [host for host, port in listening if int(port, 16) == urlsplit(server.url).port] == ["0100007F"]  # 127.0.0.1
    of_replicas = range(30_000, 30_100)  # where HAProxy sends requests to
    assert {host for host, port in listening if int(port, 16) in of_replicas} == {"0100007F"}


def test_the_computing_time_of_its_processes_is_known_by_kind(server, load, pictures):
    before = server.computed()
    account = in_thread(load.Load(server.url, pictures, clients=2, seconds=1.0, bad=0.0, timeout=8.0).run)
    passed = {kind: seconds - before[kind] for kind, seconds in server.computed().items()}
    assert list(passed) == ["replicas", "haproxy", "rest", "machine"] and account.statuses[200] > 0
    assert 0 < passed["replicas"] < sum(passed.values()) and before["haproxy"] > 0


def test_what_it_says_of_itself(server, folder):
    status, headers, body = ask(server, "GET", "/info")
    info = json.loads(body)
    assert (status, headers["content-type"], info["schema"], info["kind"]) == (200, "application/json", 1, "service")
    assert (info["engine"]["file"], info["device"], info["replicas"]) == (str(folder / "one.ts"), "cpu", 1)
    assert (info["options"]["decode"], info["decode"]) == ("auto", "cpu")
    assert info["options"]["timeout"] == 8 and info["options"]["max_bytes"] == 12_000_000
    assert server.report["kind"] == "serve" and server.report["service"]["engine"] == info["engine"]
    assert [ask(server, "GET", path)[::2] for path in ("/health", "/ready")] == [(200, b"ok\n"), (200, b"ready\n")]
    status, headers, body = ask(server, "GET", "/")
    assert status == 200 and headers["content-type"].startswith("text/html") and b"<!doctype html>" in body
    assert ask(server, "HEAD", "/health")[::2] == (200, b"")
    wrong = ("GET", "/nothing"), ("POST", "/health", b"x"), ("POST", "/detect/x", b"x")
    assert [ask(server, *asked)[0] for asked in wrong] == [404, 405, 404]


def test_every_answer_is_that_of_detect(server, pictures):
    for known in pictures:
        status, headers, answer = ask(server, "POST", "/detect", known.content)
        assert (status, headers["content-type"], answer) == (200, "application/json", known.answer + b"\n")


def test_several_pictures_at_once(server, pictures):
    boundary, parts = "cut", []
    for number, known in enumerate(pictures[:3]):
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="p"; filename="{number}.jpg"\r\n\r\n'
        parts.append(head.encode() + known.content + b"\r\n")
    body, form = b"".join(parts) + b"--cut--\r\n", "multipart/form-data; boundary=cut"
    status, headers, answer = ask(server, "POST", "/detect", body, Content_Type=form)
    expected = [known.answer.replace(b'""', f'"{number}.jpg"'.encode(), 1) for number, known in enumerate(pictures[:3])]
    assert (status, headers["content-type"]) == (200, "application/x-ndjson") and answer.splitlines() == expected
    broken = body.replace(pictures[1].content, b"nothing")
    status, _, answer = ask(server, "POST", "/detect", broken, Content_Type=form)
    assert status == 422 and json.loads(answer)["error"].startswith("1.jpg cannot be read as a picture")


@pytest.mark.parametrize("program, file", [(sys.executable, "detect.py"), ("node", "detect.mjs")])
def test_the_clients_of_the_examples(server, folder, program, file):
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    paths = [str(folder / "pictures" / name) for name in ("00.jpg", "01.jpg")]
    words = [program, str(ROOT / "examples" / "clients" / file), server.url, *paths]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = [line.split(" ") for line in done.stdout.splitlines()]
    assert [row[:2] for row in found] == [[paths[0], "car"], [paths[1], "cat"]]
    detected = json.loads(ask(server, "POST", "/detect", (folder / "pictures" / "01.jpg").read_bytes())[2])[
        "detections"
    ]
    assert list(map(float, found[1][2:])) == [detected[0]["score"], *detected[0]["box"]]


def documented():
    """The commands of docs/service.md that are executed, and the JSON that the first one prints."""
    text = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")
    block = text.split("<!-- executed by tests/serving/service/test_service.py -->\n```sh\n")[1].split("```")[0]
    return block.strip().splitlines(), text.split("<!-- output -->\n```json\n")[1].split("```")[0]


def test_the_commands_of_the_page_run(server, tmp_path):
    from PIL import Image

    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    Image.new("RGB", (640, 480), (230, 20, 20)).save(tmp_path / "street.jpg")
    lines, expected = documented()
    printed = [
        subprocess.run(
            ["curl", "-sS", "--noproxy", "*", *shlex.split(line.replace("http://127.0.0.1:8000", server.url))[1:]],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        ).stdout
        for line in lines[:3]
    ]  # fmt: skip
    assert printed[0] == expected and lines[3] == "ssdtrt serve ssd300.new.ts --swap"  # In a test below.
    assert printed[1].replace("street.jpg", "") == expected * 2
    assert json.loads(printed[2])["kind"] == "service"


def refused(found, status, message):
    assert found[0] == status and message in json.loads(found[2])["error"]


def test_what_is_no_picture_is_refused(server, pictures, load):
    content = pictures[0].content
    refused(ask(server, "POST", "/detect", os.urandom(5000)), 422, "cannot be read as a picture")
    refused(ask(server, "POST", "/detect", content[: len(content) // 2]), 422, "cannot be read as a picture")
    refused(ask(server, "POST", "/detect", b""), 400, "The body is empty")
    refused(ask(server, "POST", "/detect", content, Content_Encoding="gzip"), 415, "encoded as 'gzip'")
    refused(ask(server, "POST", "/detect", load.BOMB), 413, "more than 20,000,000 pixels")
    refused(ask(server, "PUT", "/detect", content), 405, "POST a picture")


def test_what_is_too_large_is_refused_and_not_read(server):
    head = b"POST /detect HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n"
    assert raw(server, head % b"Content-Length: 9999999999", b"abc").startswith(b"HTTP/1.1 413 ")
    chunks = [b"100000\r\n", bytes(1 << 20), b"\r\n"] * 12
    assert raw(server, head % b"Transfer-Encoding: chunked", *chunks).startswith(b"HTTP/1.1 413 ")


def test_slow_half_closed_and_damaged_requests(server):
    head = b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    started = time.monotonic()
    assert raw(server, head, b"abc").startswith(b"HTTP/1.1 408 ") and time.monotonic() - started < 7
    assert raw(server, head, *[b"a"] * 19, pauses=[0.2] * 20).startswith(b"HTTP/1.1 408 ")
    assert raw(server, head, b"abc", half_close=True) == b""  # Nobody is there to answer.
    assert raw(server, b"\0\1 nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert ask(server, "GET", "/health")[0] == 200


def begun(server, content):
    """What comes back for a picture whose first bytes are followed by the others 1.2 s later: till then it takes a place."""
    head = f"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    return raw(server, head + content[:200], content[200:], pauses=(1.2, 0))


def test_more_than_can_wait_are_refused_for_a_while(server, pictures):
    with ThreadPoolExecutor(50) as pool:
        first = []
        for known in pictures[: config.SERVE_ONGOING["cpu"]]:
            first.append(pool.submit(begun, server, known.content))
            time.sleep(0.02)  # All at once are more than may wait.
        time.sleep(0.2)
        others = [pool.submit(ask, server, "POST", "/detect", pictures[0].content) for _ in range(30)]
    assert all(one.result().startswith(b"HTTP/1.1 200 ") for one in first)
    found = [one.result() for one in others]
    statuses = [status for status, *_ in found]
    assert set(statuses) == {200, 503} and statuses.count(503) >= 30 - 12
    assert all(headers["retry-after"] == "1" for status, headers, _ in found if status == 503)


@pytest.fixture(scope="module")
def browser():
    """Chromium, for the tests of the page."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with playwright.sync_playwright() as started:
        if program is None and not os.path.exists(started.chromium.executable_path):
            pytest.skip("needs Chromium")
        with contextlib.closing(started.chromium.launch(executable_path=program, args=["--no-sandbox"])) as browser:
            yield browser


@pytest.fixture
def browse(browser, server):
    """Opens the page: `browse(width, height)` -> playwright's page, which has no error and asks nobody else."""
    errors, pages, choosers = [], [], []

    def is_own(address):
        return address.startswith((server.url, "blob:"))

    def open_page(width, height, **options):
        page = browser.new_page(viewport={"width": width, "height": height}, **options)
        pages.append(page)
        page.on(
            "filechooser", lambda chooser: choosers.append(chooser)
        )  # From the start: it takes a moment until Chromium tells of one.
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda asked: None if is_own(asked.url) else errors.append(asked.url))
        page.goto(server.url)
        page.locator("#engine", has_text="one.ts").wait_for()
        return page

    open_page.choosers = choosers
    yield open_page
    for page in pages:
        page.close()
    assert errors == []


def state(page, text):
    """Waits until the page says so; whether as an error."""
    page.locator("#state", has_text=text).wait_for()
    return page.get_attribute("#state", "class") == "bad"


def drop(page, path, event="drop", transfer="dataTransfer"):
    """Drops a file on the page as the system does, or pastes it."""
    content = base64.b64encode(path.read_bytes()).decode()
    page.evaluate(
        """([content, name, event, transfer]) => {
            const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0)), data = new DataTransfer();
            data.items.add(new File([bytes], name, {type: "image/jpeg"}));
            const made = transfer === "dataTransfer"
                ? new DragEvent(event, {dataTransfer: data, bubbles: true, cancelable: true})
                : new ClipboardEvent(event, {clipboardData: data, bubbles: true});
            document.getElementById("drop").dispatchEvent(made);
        }""",
        [content, path.name, event, transfer],
    )


def pixel(page, x, y):
    """A pixel of what is drawn, at a place of the picture."""
    return page.evaluate("([x, y]) => [...document.getElementById('canvas').getContext('2d').getImageData(x, y, 1, 1).data]",
                         [x, y])  # fmt: skip


def test_the_page_shows_boxes(browse, folder, pictures, tmp_path):
    page, red = browse(1000, 800), folder / "pictures" / "01.jpg"
    assert page.text_content("#engine") == "one.ts, FP32 on cpu"
    drop(page, red)
    assert not state(page, "1 object in 01.jpg, 201 x 297")
    assert page.locator("#rows tr").count() == 1
    cells = page.locator("#rows td").all_text_contents()
    answer = json.loads(pictures[1].answer)["detections"][0]
    assert cells == ["cat", f"{answer['score']:.3f}", ", ".join(f"{edge:.0f}" for edge in answer["box"])]
    left, _, _, bottom = (round(edge) for edge in answer["box"])
    (inside, edge) = pixel(page, 100, 200), pixel(page, left, bottom - 40)
    assert inside[0] > 200 and inside[1] < 60 and abs(edge[0] - inside[0]) + abs(edge[1] - inside[1]) > 60
    page.screenshot(path=tmp_path / "dropped.png")
    page.set_input_files("#file", folder / "pictures" / "00.jpg")
    assert not state(page, "1 object in 00.jpg") and page.locator("#rows td").first.text_content() == "car"
    drop(page, red, "paste", "clipboardData")
    state(page, "1 object in 01.jpg")
    (tmp_path / "broken.jpg").write_bytes(red.read_bytes()[:300])
    drop(page, tmp_path / "broken.jpg")
    assert state(page, "cannot be read as a picture") and page.is_hidden("#result")
    page.screenshot(path=tmp_path / "broken.png")


def test_the_page_takes_the_keyboard_and_large_pictures(browse, folder, tmp_path):
    from PIL import Image

    page = browse(1000, 800)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    page.keyboard.press("Enter")
    while not browse.choosers:
        page.wait_for_timeout(50)
    large = tmp_path / "large.jpg"
    Image.effect_noise((2600, 2500), 120).convert("RGB").save(large, quality=99)
    assert 1e7 < large.stat().st_size < 12e6
    browse.choosers[0].set_files(large)
    assert not state(page, "in large.jpg, 2600 x 2500")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "least"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "TR"
    page.screenshot(path=tmp_path / "large.png")
    page.focus("#least")
    page.keyboard.press("End")
    assert page.locator("#rows tr").count() == 0 and page.text_content("#score") == "1.00"
    (tmp_path / "larger.jpg").write_bytes(bytes(12_000_001))
    page.set_input_files("#file", tmp_path / "larger.jpg")
    assert state(page, "12,000,001 bytes; at most 12,000,000 are taken")


def test_the_page_fits_a_phone(browse, photographs, tmp_path):
    page = browse(390, 844, has_touch=True, device_scale_factor=2)
    page.set_input_files("#file", photographs[0])
    state(page, f"object in {photographs[0].name}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    canvas = page.locator("#canvas").bounding_box()
    assert 300 < canvas["width"] <= 390
    page.screenshot(path=tmp_path / "phone.png", full_page=True)


def test_twenty_clients_get_their_own_answers(server, pictures, load):
    account = in_thread(load.Load(server.url, pictures, clients=20, seconds=10, bad=0.1, timeout=8, pause=0.2).run)
    assert account.unexpected() == {}
    assert account.answers["equal"] == account.statuses[200] == len(account.latencies) >= 100
    assert len(account.bad) >= 4 and account.answers["near"] == 0
    rows = ask(server, "GET", "/metrics")[2].decode()
    assert "ray_serve_num_http_requests_total" in rows and "ray_ssdtrt_pictures_total" in rows


def test_an_engine_that_cannot_be_loaded_changes_nothing(server, folder):
    (folder / "damaged.ts").write_bytes((folder / "one.ts").read_bytes()[:-1000])
    done = command("serve", folder / "damaged.ts", "--swap", "--ray", server.report["ray"])
    assert done.returncode == 1 and "is truncated, damaged" in done.stderr and "Traceback" not in done.stderr
    assert json.loads(ask(server, "GET", "/info")[2])["engine"]["file"] == str(folder / "one.ts")


def test_an_engine_that_no_replica_can_run_changes_nothing(server, folder, tensorrt_engine):
    done = command("serve", tensorrt_engine, "--swap", "--ray", server.report["ray"])
    assert done.returncode == 1 and done.stderr.startswith("Error: The service keeps the engine that it has. ")
    assert json.loads(ask(server, "GET", "/info")[2])["engine"]["file"] == str(folder / "one.ts")


def test_a_new_engine_under_load_loses_nothing(server, folder, pictures, others, load):
    assert all(one.answer != other.answer for one, other in zip(pictures, others))
    asked = load.Load(server.url, pictures, clients=8, seconds=60, bad=0, timeout=8, pause=0.1)
    found, compared = [], load.compared

    def which(answer, known):
        expected = next(other.answer for one, other in zip(pictures, others) if one.answer == known)
        found.append({known: "one", expected: "other"}.get(answer.rstrip(b"\n"), "wrong"))
        return "equal"

    async def run():
        stop = asyncio.Event()
        sending = asyncio.create_task(asked.send(stop))
        swap = await asyncio.to_thread(
            command, "serve", folder / "other.ts", "--swap", "--ray", server.report["ray"], "--json", "-"
        )
        await asyncio.sleep(1)
        stop.set()
        return await sending, swap

    load.compared = which
    try:
        account, swap = in_thread(lambda: asyncio.run(run()))
    finally:
        load.compared = compared
    assert swap.returncode == 0, swap.stderr
    report = json.loads(swap.stdout)
    assert report["before"]["file"] == str(folder / "one.ts") and report["url"] == server.url
    assert account.unexpected() == {} and set(account.statuses) == {200}
    first = found.index("other")
    assert "wrong" not in found and first > 10 and len(found) - first > 10
    assert found[first + 8 :].count("one") == 0  # At most what was on its way.


def test_sigterm_under_load_loses_nothing_that_was_accepted(server, pictures, others):
    known = {one.content: {one.answer, other.answer} for one, other in zip(pictures, others)}
    found, uploads, ended = [], [], threading.Event()

    def send():
        while True:
            late = ended.is_set()
            try:
                found.append((late, *ask(server, "POST", "/detect", pictures[0].content)[::2]))
            except (OSError, http.client.HTTPException) as error:
                found.append((late, type(error).__name__, b""))
                return
            time.sleep(0.03)

    def upload(content):
        uploads.append((content, begun(server, content)))

    threads = [threading.Thread(target=upload, args=[one.content]) for one in pictures[:16]]
    threads += [threading.Thread(target=send) for _ in range(4)]  # They wait: there is no room for more.
    for thread in threads:
        thread.start()
        time.sleep(0.02)  # All at once are more than may wait.
    time.sleep(0.4)
    ended.set()
    server.process.send_signal(signal.SIGTERM)
    server.exit_code = server.process.wait(60)
    for thread in threads:
        thread.join()
    assert server.exit_code == 0 and len(uploads) == config.SERVE_ONGOING["cpu"] == 16
    for content, answer in uploads:
        assert answer.startswith(b"HTTP/1.1 200 "), [one for _, one in uploads]
        assert answer.rpartition(b"\r\n")[2].strip() in known[content]
    before = {(status, answer.strip()) for late, status, answer in found if not late}
    assert len(before) >= 1 and {status for status, _ in before} <= {200, 503}
    assert {answer for status, answer in before if status == 200} <= known[pictures[0].content]
    after = {status for late, status, _ in found if late}
    cut_off = {"ConnectionRefusedError", "ConnectionResetError", "RemoteDisconnected", "IncompleteRead"}
    assert after <= {200, 503, *cut_off}


START_SERVE = """
import sys
import ray
from ray import serve
ray.init(sys.argv[1], log_to_driver=False)
serve.start(http_options={"port": int(sys.argv[2])})
"""


def test_on_a_cluster_whose_ray_serve_runs_before_and_after(load, folder, pictures):
    port = script("service_process").free_port()
    with ray_cluster(6) as (cluster, _):
        subprocess.run([sys.executable, "-c", START_SERVE, cluster.address, str(port)], capture_output=True, check=True)
        with server_of(folder / "one.ts", folder, "--ray", cluster.address) as server:
            assert not server.url.endswith(f":{port}")  # Another was asked for.
            server.url = server.report["url"]
            assert server.url == server.report["service"]["options"]["url"] == f"http://127.0.0.1:{port}"
            status, _, body = ask(server, "POST", "/detect", pictures[0].content)
            assert status == 200 and json.loads(body)["detections"]
        assert server.exit_code == 0 and ask(server, "GET", "/health")[0] == 404


def test_another_command_ends_the_service_and_its_cluster(load, folder):
    with server_of(folder / "one.ts", folder) as server:
        done = command("serve", "--stop", "--ray", server.report["ray"])
        assert (done.returncode, done.stdout) == (0, f"{server.url}: the service has ended\n"), done.stderr
        place = urlsplit(server.url)
        socket.create_server((place.hostname, place.port)).close()  # The next service can listen there.
        server.exit_code = server.process.wait(60)
    assert server.exit_code == 0
