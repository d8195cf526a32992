"""The clients of benchmarks/service.py, and the memory that it reads: what they do on a service is tested there."""

import asyncio
import json
import os
from importlib.util import find_spec

import pytest

from conftest import script

pytestmark = pytest.mark.skipif(not find_spec("aiohttp"), reason="needs the extra ray")


@pytest.fixture(scope="module")
def load():
    return script("service_load")


def answer(*found, width=640):
    rows = [{"label_id": label, "score": score, "box": [left, 10.0, left + 50, 60.0]} for label, score, left in found]
    return json.dumps({"width": width, "height": 480, "detections": rows}).encode()


KNOWN = (1, 0.9, 10.0), (2, 0.8, 100.0), (2, 0.7, 300.0), (3, 0.5, 400.0)


@pytest.mark.parametrize(("found", "verdict"), [
    (KNOWN, "equal"),
    (((1, 0.905, 11.0), (2, 0.8, 100.0), (2, 0.7, 300.0), (3, 0.5, 400.0)), "near"),
    (KNOWN[:3], "near"),  # What is left out is at the threshold.
    ((*KNOWN[:2], (2, 0.75, 200.0), *KNOWN[2:]), "flipped"),
    ((KNOWN[0], *KNOWN[2:]), "flipped"),
    (((1, 0.9, 20.0), (2, 0.8, 110.0), (2, 0.7, 310.0), (3, 0.5, 400.0)), "wrong"),
    (((5, 0.9, 10.0), (5, 0.8, 100.0), (5, 0.7, 300.0), (3, 0.5, 400.0)), "wrong"),
])  # fmt: skip
def test_answers_differ_by_rounding_or_are_of_another_picture(load, found, verdict):
    assert load.compared(answer(*found), answer(*KNOWN)) == verdict
    assert load.compared(answer(*found, width=641), answer(*KNOWN)) == "wrong"


def test_the_busiest_process_of_clients_counts(load):
    account = load.Load("http://127.0.0.1:9", [], clients=0, seconds=0, bad=0, timeout=1).run()
    assert 0 < account.busy <= 1.5
    account.add(load.Account(busy=2.0))
    account.add(load.Account(busy=0.5))
    assert account.busy == 2.0


def test_a_client_goes_on_beside_its_slow_upload(load):
    known, begun = load.Known(b"picture", answer(*KNOWN)), []

    async def answered(reader, writer):
        while head := await reader.readuntil(b"\r\n\r\n"):
            if b"Content-Length: 1000\r\n" in head:
                begun.append(len(begun))
                while begun[-1] < 20:  # requests that came meanwhile
                    await asyncio.sleep(0.01)
                writer.write(b"HTTP/1.1 408 Late\r\nContent-Length: 0\r\n\r\n")
                break
            await reader.readexactly(len(known.content))
            begun.append(len(begun))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(known.answer), known.answer))
            await writer.drain()
        writer.close()

    async def run():
        async with await asyncio.start_server(answered, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            asked = load.Load(url, [known], clients=1, seconds=20, bad=0.5, timeout=30, kinds=("slow",), pause=0.01)
            stop = asyncio.Event()
            sending = asyncio.create_task(asked.send(stop))
            while len(begun) < 40:
                await asyncio.sleep(0.01)
            stop.set()
            return await sending

    account = asyncio.run(run())
    assert account.unexpected() == {} and account.bad["slow"][408] >= 1
    assert account.answers == {"equal": account.statuses[200]} and account.statuses[200] >= 20


def test_memory_is_that_of_all_processes_and_gpus(tmp_path, monkeypatch):
    process = script("service_process")
    assert next(process.descendants(os.getpid())) == os.getpid() and process.proportional(os.getpid()) > 10
    assert process.proportional(2**22 + 1) == 0
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 100\necho 200\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert process.gpu_mib() == [300]
    program.write_text("#!/bin/sh\nexit 9\n")
    assert process.gpu_mib() == []
