"""The deployment that detects, without its service: how it goes from one engine to another."""

import asyncio
import warnings

import pytest

pytest.importorskip("ray", reason="needs the extra ray")

from jpeg_files import jpeg

from known import Few, known_file
from ssdtrt.errors import ArtifactError
from ssdtrt.serving.service.records import EngineFile, ServiceOptions
from ssdtrt.serving.service.uploads import Refused, Upload
from ssdtrt.system.digests import sha256_file


@pytest.fixture
def replica():
    """A replica that runs no engine yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's, of what is deprecated in itself.
        from ssdtrt.serving.service.replica import DetectReplica
    return DetectReplica(ServiceOptions(url=""))


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """Two files."""
    folder, found = tmp_path_factory.mktemp("replica"), []
    for name in ("one.ts", "other.ts"):
        known_file(folder / name, network=Few)
        found.append(EngineFile(str(folder / name), sha256_file(folder / name)))
    return found


def test_what_was_prepared_is_taken_or_forgotten(replica, engines):
    async def run():
        one, other = engines
        await replica.prepare(one)
        assert replica.switch(one) and replica.info().engine == one
        await replica.prepare(other)
        replica.forget()  # Another replica could not load it.
        assert not replica.switch(other) and replica.info().engine == one
        await replica.prepare(other)
        assert not replica.switch(one) and replica.info().engine == one  # Of another swap; this one goes on.
        assert replica.switch(other) and replica.info().engine == other
        assert replica._next is replica._awaited is None

    asyncio.run(run())


def test_what_is_still_loaded_when_another_replica_fails_is_not_kept(replica, engines):
    async def run():
        one, other = engines
        await replica.prepare(one)
        replica.switch(one)
        preparing = asyncio.create_task(replica.prepare(other))
        await asyncio.sleep(0)
        replica.forget()
        await preparing
        assert replica._next is None and not replica.switch(other)

    asyncio.run(run())


def test_a_file_that_cannot_be_loaded_leaves_the_one_that_runs(replica, engines):
    async def run():
        one, other = engines
        await replica.prepare(one)
        replica.switch(one)
        with pytest.raises(ArtifactError, match="expected 0000"):
            await replica.prepare(EngineFile(other.file, "0" * 64))
        replica.forget()
        assert replica.info().engine == one

    asyncio.run(run())


def test_a_picture_that_cannot_be_read_in_its_batch_refuses_its_request(replica, engines, monkeypatch):
    """A JPEG for the GPU shows only there that it is broken."""
    lines = {"a.jpg": "a line", "b.jpg": Refused(422, "broken")}

    async def in_a_batch(item):  # Ray Serve's needs a service around it.
        return lines[item[1].name]

    async def run():
        await replica.prepare(engines[0])
        replica.switch(engines[0])
        monkeypatch.setattr(replica, "_detect", in_a_batch)
        good, bad = Upload("a.jpg", jpeg()), Upload("b.jpg", jpeg())
        assert await replica._answer([good, good]) == ["a line", "a line"]
        with pytest.raises(Refused, match="broken"):
            await replica._answer([good, bad])

    asyncio.run(run())
