"""Pictures to calibrate on and to judge on: how many, from where, and that they are not the same."""

import json
import os

import numpy as np
import pytest
import torch
from coco_files import write_annotations
from PIL import Image

from ssdtrt.errors import AnnotationsError, CalibrationError, ImageError
from ssdtrt.images.tensors import prepare
from ssdtrt.quantization.pictures import check_disjoint, read_annotated, read_calibration
from ssdtrt.system.digests import sha256_file

LABELS = ("background", "person", "bicycle")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A folder of 499 small pictures, all different."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(499):
        color = np.full((4, 4, 3), (number % 256, number // 256, 7), np.uint8)
        Image.fromarray(color).save(folder / f"{number:03d}.png")
    return folder


def listed(folder, names):
    path = folder / "list.txt"
    path.write_text("\n".join(map(str, names)))
    return path


def test_too_few_are_refused_before_they_are_read(many, tmp_path):
    source = listed(tmp_path, sorted(many.iterdir())[:99])
    with pytest.raises(CalibrationError) as caught:
        read_calibration(source, "eval", progress=lambda text: pytest.fail("they were read"))
    assert str(caught.value) == (
        f"{source} has 99 pictures; INT8 is calibrated on 500 or more like those that it will see, at least 100."
    )


@pytest.mark.parametrize("count", [100, 499])
def test_few_are_taken_with_a_note(many, count, tmp_path):
    notes = []
    source = many if count == 499 else listed(tmp_path, sorted(many.iterdir())[:count])
    found = read_calibration(source, "eval", note=notes.append)
    assert notes == [f"{count} pictures to calibrate on; ranges are surer from 500 on."]
    assert found.images.shape == (count, 3, 300, 300) and found.images.dtype == torch.uint8
    assert len(set(found.digests)) == count


def test_enough_are_taken_without_a_word_and_with_a_table_any_number_is(many, tmp_path, monkeypatch):
    monkeypatch.setattr("ssdtrt.config.CALIBRATION_PICTURES", 6)
    monkeypatch.setattr("ssdtrt.config.MIN_CALIBRATION_PICTURES", 5)
    paths = sorted(many.iterdir())
    for count, options in ((6, {}), (1, {"any_number": True})):
        source = listed(tmp_path, paths[:count])
        found = read_calibration(source, "eval", note=pytest.fail, **options)
        assert found.digests == tuple(sha256_file(path) for path in paths[:count])


def test_a_folder_a_pattern_and_a_list_are_their_pictures(many, monkeypatch, tmp_path):
    monkeypatch.setattr("ssdtrt.config.MIN_CALIBRATION_PICTURES", 1)
    wanted = [many / f"00{number}.png" for number in range(10)]
    digests = tuple(map(sha256_file, wanted))
    folder = tmp_path / "few"
    folder.mkdir()
    for path in wanted:
        os.link(path, folder / path.name)
    for source in (folder, str(many / "00?.png"), listed(tmp_path, wanted)):
        found = read_calibration(source, "hub")
        assert found.digests == digests, source
        for image, path in zip(found.images, wanted):
            assert torch.equal(image, prepare(Image.open(path), "hub"))


def test_every_fifth_is_held_out(many):
    found = read_calibration(str(many / "00?.png"), "eval", any_number=True)
    assert found.held_out.digests == (found.digests[0], found.digests[5])
    assert found.measured.digests == tuple(found.digests[number] for number in (1, 2, 3, 4, 6, 7, 8, 9))
    assert torch.equal(found.held_out.images, found.images[[0, 5]]) and len(found.measured.images) == 8


def test_what_is_not_there_or_no_picture_is_one_line(many, tmp_path):
    with pytest.raises(CalibrationError) as caught:
        read_calibration(tmp_path / "nowhere", "eval")
    assert str(caught.value) == (
        f"{tmp_path / 'nowhere'} does not exist; expected pictures: a folder, a pattern, or a list of paths."
    )
    (tmp_path / "empty").mkdir()
    for source, reason in ((tmp_path / "empty", "holds no pictures"), (str(tmp_path / "*.jpg"), "matches no file")):
        with pytest.raises(ImageError, match=reason):
            read_calibration(source, "eval")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no more")
    with pytest.raises(ImageError) as caught:
        read_calibration(listed(tmp_path, [many / "000.png", tmp_path / "broken.png"]), "eval", any_number=True)
    assert str(caught.value).startswith(f"{tmp_path / 'broken.png'} ") and "\n" not in str(caught.value)


@pytest.fixture
def annotated(many, tmp_path):
    """Two of the pictures with an object that fills each, and their annotation file."""
    images, objects = {5: "000.png", 9: "003.png"}, [(5, 1, [0, 0, 4, 4]), (9, 2, [0, 0, 4, 4])]
    categories = {1: "person", 2: "bicycle"}
    return many, write_annotations(tmp_path / "a.json", images, objects, categories)


def test_annotated_pictures_and_their_ap(annotated):
    found = read_annotated(*annotated, LABELS, "eval")
    assert (found.ids, found.sizes, len(found.images)) == ((5, 9), ((4, 4), (4, 4)), 2)
    assert found.digests == tuple(sha256_file(annotated[0] / name) for name in ("000.png", "003.png"))
    whole, score = torch.tensor([[-0.1, 0.0, 1.0, 1.2]]), torch.tensor([0.9])  # Boxes are clipped to the picture.

    def one(label):
        return whole, torch.tensor([label]), score

    assert found.average_precision([one(1), one(2)]) == pytest.approx(1.0)
    assert found.average_precision([one(1), one(1)]) < 0.6
    nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0)
    assert found.average_precision([nothing, nothing]) == 0.0


def test_pictures_that_are_calibrated_on_are_not_judged_on(annotated):
    found = read_annotated(*annotated, LABELS, "eval")
    check_disjoint(found, ["0" * 64])
    with pytest.raises(CalibrationError) as caught:
        check_disjoint(found, read_calibration(str(annotated[0] / "00[0-2].png"), "eval", any_number=True).digests)
    assert str(caught.value) == (
        "1 of the 2 annotated pictures were calibrated on too, so that their AP would flatter INT8: calibrate on others."
    )


def test_annotations_that_cannot_be_used_are_one_line(annotated, tmp_path):
    folder, path = annotated
    data = json.loads(path.read_text())
    data["images"][0]["file_name"] = "none.png"
    path.write_text(json.dumps(data))
    with pytest.raises(AnnotationsError, match="lacks 1 of the 2 pictures"):
        read_annotated(folder, path, LABELS, "eval")
