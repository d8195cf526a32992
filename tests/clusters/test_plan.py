"""Plans: what is there already, and folders that are refused."""

import json

import msgspec
import pytest

pytest.importorskip("pyarrow")

from ssdtrt.clusters.blocks import unread, write_block
from ssdtrt.clusters.plan import make_manifest, make_plan, write_manifest
from ssdtrt.clusters.records import BatchSettings
from ssdtrt.clusters.storage import Folder
from ssdtrt.errors import ArtifactError

PATHS = [f"{n}.jpg" for n in range(10)]


def manifest(file="a.ts", sha256="0" * 64, paths=PATHS, block_size=4, **settings):
    return make_manifest(file, sha256, ("background", "cat"), BatchSettings(**settings), paths, block_size)


def write(folder, plan, block):
    rows = [unread(path, "no") for path in PATHS[plan.manifest.pictures_of(block)]]
    write_block(folder, block, plan.run, rows, plan.manifest.labels)


@pytest.fixture
def folder(tmp_path):
    return Folder(str(tmp_path / "out"))


def test_the_list_is_cut_into_blocks():
    made = manifest()
    assert (made.pictures, made.blocks) == (10, 3)
    assert [PATHS[made.pictures_of(block)] for block in range(3)] == [PATHS[:4], PATHS[4:8], PATHS[8:]]
    # printf '%s.jpg\0' 0 1 2 3 4 5 6 7 8 9 | sha256sum
    assert made.list_sha256 == "144dce5dd11db5ab9faa42fef82299f6b9b291c79076405910c1833c2be43deb"


def test_blocks_that_are_there_are_done(folder, tmp_path):
    plan = make_plan(manifest(), folder)
    assert plan.missing == [0, 1, 2] and plan.line == "10 pictures in 3 blocks"
    write_manifest(manifest(file="m\udcff.ts"), folder)  # Its name is no text.
    write(folder, plan, 1)
    again = make_plan(manifest(file="moved/a.ts"), folder)
    assert (again.run, again.missing) == (plan.run, [0, 2])
    assert again.line == "10 pictures in 3 blocks, 1 block of them there already"
    assert (again.done[1].pictures, again.done[1].errors) == (4, 4)
    (tmp_path / "out" / "part-00000002.parquet").write_bytes((tmp_path / "out" / "part-00000001.parquet").read_bytes())
    (tmp_path / "out" / "part-00000000.parquet").write_bytes(b"PAR1")
    assert make_plan(manifest(), folder).missing == [0, 2]  # Another block's, and a damaged one.


@pytest.mark.parametrize(("change", "words"), [
    ({"sha256": "1" * 64}, f"the SHA-256 of the engine was {'0' * 64}, is {'1' * 64}"),
    ({"threshold": 0.5}, "threshold was 0.4, is 0.5"),
    ({"classes": (1,)}, "classes was none, is (1,)"),
    ({"paths": PATHS[::-1]}, "the SHA-256 of the list was "),
    ({"paths": PATHS[:9]}, "the number of pictures was 10, is 9; the SHA-256 of the list was "),
    ({"block_size": 5}, "the block size was 4, is 5"),
])  # fmt: skip
def test_another_run_in_the_same_folder_is_refused(folder, change, words):
    write_manifest(manifest(), folder)
    with pytest.raises(ArtifactError) as error:
        make_plan(manifest(**change), folder)
    assert f"out has results of another run: {words}" in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).endswith(". Ask for the same to go on with it, or give another folder with -o.")


def test_files_without_a_manifest_and_what_is_no_manifest_are_refused(folder, tmp_path):
    plan = make_plan(manifest(), folder)
    folder.make()
    write(folder, plan, 0)
    with pytest.raises(ArtifactError, match=r"out has Parquet files and no _manifest\.json; give another folder"):
        make_plan(manifest(), folder)
    (tmp_path / "out" / "_manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"_manifest\.json cannot be read \(.*\)\. Give another folder with -o\.$"):
        make_plan(manifest(), folder)


def test_the_manifest_is_a_document(folder, tmp_path):
    write_manifest(manifest(), folder)
    written = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert list(written)[:3] == ["schema", "kind", "file"] and written["kind"] == "batch-manifest"
    assert written == msgspec.json.decode(msgspec.json.encode(manifest().document()))
