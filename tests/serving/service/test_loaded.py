"""An engine in a replica: what it says is what `ssdtrt detect` writes."""

import contextlib
import io
import json

import pytest

pytest.importorskip("starlette", reason="needs the extra ray")

from jpeg_files import jpeg, without_tables, write_all
from PIL import Image

from ssdtrt.errors import ArtifactError, SsdtrtError
from ssdtrt.serving.service.loaded import LoadedEngine
from ssdtrt.serving.service.records import EngineFile, ServiceOptions
from ssdtrt.serving.service.uploads import Refused, Upload
from ssdtrt.system.digests import sha256_file


def load(path, *not_decoded, **options):
    return LoadedEngine(EngineFile(str(path), sha256_file(path)), ServiceOptions(url="", **options), *not_decoded)


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


def test_jpegs_for_the_gpu_give_what_detect_writes(gpu_decoding, known, ssdtrt, tmp_path):
    paths, broken = write_all(tmp_path)
    files = [path for path in paths if path.is_file()]
    loaded, pictures = load(known, decode="gpu"), []
    for path in files:
        with contextlib.suppress(Refused):
            pictures.append(loaded.prepare(Upload(str(path), path.read_bytes())))
    answers = [one for one in loaded.detect(pictures) if not isinstance(one, Refused)]
    assert gpu_decoding.asked[-1] == 35 and loaded.info().decode == load(known).info().decode == "gpu"
    done = ssdtrt("-q", "detect", known, *files, "--decode", "cpu", "--jsonl", "-")
    assert answers == done.stdout.splitlines() and len(answers) == len(paths) - broken


def test_what_the_gpu_cannot_decode_pillow_reads_or_refuses_alone(gpu_decoding, known):
    contents = [jpeg(seed=1), without_tables(jpeg(seed=2)), jpeg(seed=3)]
    gpu_decoding.refused.append(contents[2])
    names, counted = ["a.jpg", "b.jpg", "c.jpg"], []
    loaded, pillow = load(known, counted.append, decode="gpu"), load(known, decode="cpu")
    uploads = list(map(Upload, names, contents))
    first, second, third = loaded.detect([loaded.prepare(one) for one in uploads])
    assert [first, third] == pillow.detect([pillow.prepare(uploads[0]), pillow.prepare(uploads[2])])
    assert counted == [1]
    assert loaded.detect([loaded.prepare(uploads[2])]) == [third]  # Nothing is left of the batch before.
    with pytest.raises(Refused) as refused:
        pillow.prepare(uploads[1])
    assert (str(second), second.status) == (str(refused.value), 422) and "b.jpg" in str(second)


def test_too_many_pixels_are_refused_where_the_gpu_decodes_too(gpu_decoding, known):
    for decode in ("cpu", "gpu"):
        with pytest.raises(Refused, match="a.jpg has more than 99 pixels; send a smaller one.") as refused:
            load(known, decode=decode, max_pixels=99).prepare(Upload("a.jpg", jpeg()))
        assert refused.value.status == 413


def test_a_gpu_that_cannot_decode_is_an_error_only_where_it_was_asked_for(known):
    with pytest.raises(SsdtrtError, match="JPEGs cannot be decoded on the GPU: there is no GPU"):
        load(known, decode="gpu")
    assert load(known, decode="auto").info().decode == load(known).info().decode == "cpu"
