"""An engine in a replica: what it says is what `ssdtrt detect` writes."""

import io
import json

import pytest

pytest.importorskip("starlette", reason="needs the extra ray")

from PIL import Image

from ssdtrt.errors import ArtifactError
from ssdtrt.serving.service.loaded import LoadedEngine
from ssdtrt.serving.service.records import EngineFile, ServiceOptions
from ssdtrt.serving.service.uploads import Refused, Upload
from ssdtrt.system.digests import sha256_file


def load(path, **options):
    return LoadedEngine(EngineFile(str(path), sha256_file(path)), ServiceOptions(url="", **options))


@pytest.mark.parametrize("kind", ["engine", "hub_module"])
def test_it_says_what_detect_writes(kind, request, photographs, ssdtrt):
    path = request.getfixturevalue(kind)
    loaded = load(path, classes=("person", "cat", "giraffe"), threshold=0.3)
    pictures = [loaded.prepare(Upload(str(one), one.read_bytes())) for one in photographs]
    assert all(one.source == "" for one in pictures)  # Else the whole picture is kept.
    options = ("--threshold", 0.3, "--classes", "person,cat,giraffe", "--jsonl", "-")
    done = ssdtrt("-q", "detect", path, *photographs, *options)
    assert loaded.detect(pictures) == done.stdout.splitlines() and len(pictures) > 2


def test_a_picture_that_cannot_be_read(known):
    loaded = load(known, max_pixels=99)
    with pytest.raises(Refused, match=r"a\.jpg cannot be read as a picture \(it is empty, or of no format") as refused:
        loaded.prepare(Upload("a.jpg", b"\0" * 100))
    assert refused.value.status == 422
    for size, refused_with in (((10, 10), 413), ((11, 9), None)):
        file = io.BytesIO()
        Image.new("RGB", size).save(file, "PNG")
        if refused_with is None:
            assert loaded.prepare(Upload("", file.getvalue())).size == size
            continue
        with pytest.raises(Refused, match="The upload has more than 99 pixels; send a smaller one.") as refused:
            loaded.prepare(Upload("", file.getvalue()))
        assert refused.value.status == refused_with


def test_what_it_tells_of_itself(known):
    info = load(known, threshold=0.5).info()
    assert json.loads(json.dumps(info.document()))["engine"] == {"file": str(known), "sha256": sha256_file(known)}
    assert (info.precision, info.device, info.batch_size, info.labels[16], info.note) == ("fp32", "cpu", 2, "cat", "")
    assert info.options.threshold == 0.5


def test_another_file_than_was_checked(known):
    with pytest.raises(ArtifactError, match="expected 0000"):
        LoadedEngine(EngineFile(str(known), "0" * 64), ServiceOptions(url=""))
