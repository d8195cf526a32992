"""benchmarks/scenes.py and train_scenes.py: pictures, boxes that are tight, matching, and a training that learns."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import script
from ssdtrt.model.boxes import decode_boxes, default_boxes, to_xyxy
from ssdtrt.model.weights import build_model

scenes, ssd_loss, train_scenes = script("scenes"), script("ssd_loss"), script("train_scenes")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def layout():
    """Eight layouts."""
    return scenes.draw_layout(scenes.random_numbers(5, scenes.CHECK), 8)


@pytest.fixture(scope="module")
def rendered(layout):
    """Their pictures, 200 wide and 160 high."""
    return scenes.render(layout, 160, 200, torch.Generator().manual_seed(0), CPU)


def contains(name, u, v):
    """Whether a shape holds the point (u, v) of its box, -1..1, v downwards: written apart from the script."""
    if not (-1 <= u <= 1 and -1 <= v <= 1):
        return False
    r2, a, b = u * u + v * v, abs(u), abs(v)
    long, short = max(a, b), min(a, b)
    return {
        "disc": r2 <= 1,
        "rectangle": True,
        "triangle": 2 * a - v <= 1,
        "ring": 0.3 <= r2 <= 1,
        "cross": short <= 0.3,
        "star": long + 2.5 * short <= 1,
        "dome": u * u + (0.5 - 0.5 * v) ** 2 <= 1,
        "diamond": a + b <= 1,
        "frame": long >= 0.6,
        "ell": u <= -0.3 or v >= 0.3,
    }[name]


def visible_points(layout, picture, height, width):
    """For each pixel's center the index of the topmost object there, or -1."""
    top = np.full((height, width), -1)
    for k, label in enumerate(layout.labels[picture]):
        if label:
            for row in range(height):
                for column in range(width):
                    point = np.array([(column + 0.5) / width, (row + 0.5) / height])
                    u, v = 2 * (point - layout.center[picture, k]) / layout.size[picture, k] * layout.flip[picture, k]
                    if contains(scenes.LABELS[label - 1], u, v):
                        top[row, column] = k
    return top


def test_every_shape_touches_all_sides_of_its_box_and_no_more():
    line = torch.linspace(-1.5, 1.5, 601)
    for label, name in enumerate(scenes.LABELS):
        mask = scenes.inside(label, line[None, None, :], line[None, :, None])[0]
        rows, columns = torch.where(mask.any(1))[0], torch.where(mask.any(0))[0]
        ends = [line[i].item() for i in (rows[0], rows[-1], columns[0], columns[-1])]
        assert ends == pytest.approx([-1, 1, -1, 1], abs=0.011), name


def test_boxes_and_areas_are_those_of_the_pixels_that_can_be_seen(layout):
    height, width = 60, 80
    scene = scenes.render(layout, height, width, torch.Generator().manual_seed(0), CPU)
    for picture in range(3):
        top = visible_points(layout, picture, scenes.FINE * height, scenes.FINE * width)
        for k in torch.where(scene.labels[picture] > 0)[0].tolist():
            rows, columns = np.where(top == k)
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            box = scene.boxes_xyxy[picture, k] * torch.tensor([width, height, width, height])
            assert (scenes.FINE * box).tolist() == pytest.approx(
                found, abs=1.01
            )  # a point on an edge may round either way
            assert scene.areas[picture, k].item() == pytest.approx(len(rows) / scenes.FINE**2, rel=0.01, abs=0.5)


def test_objects_look_different_from_what_surrounds_them(layout, rendered):
    for picture in range(len(layout.labels)):
        base = torch.from_numpy(layout.background[picture]).float() * 255
        for k in torch.where(rendered.labels[picture] == 1 + scenes.LABELS.index("rectangle"))[0].tolist():
            x, y = (layout.center[picture, k] * (200, 160)).astype(int)
            around = rendered.images[picture, :, y - 2 : y + 3, x - 2 : x + 3].float().mean((1, 2))
            assert (around - base).norm() > 255 * scenes.CONTRAST / 3


def test_layouts_keep_to_their_limits():
    layout = scenes.draw_layout(scenes.random_numbers(1, scenes.TRAIN), 300)
    there = layout.labels > 0
    counts = there.sum(1)
    assert counts.min() >= 1 and counts.max() <= scenes.MAX_OBJECTS and counts.mean() > 4
    low, high = layout.center - layout.size / 2, layout.center + layout.size / 2
    assert low[there].min() >= 0 and high[there].max() <= 1
    assert set(layout.labels[there]) == set(range(1, len(scenes.LABELS) + 1))
    boxes = torch.from_numpy(np.concatenate([low, high], axis=-1))
    for picture in range(len(boxes)):
        mine = boxes[picture, there[picture]][None]
        overlap = ssd_loss.pair_iou(mine, mine[0])[0].fill_diagonal_(0)
        assert overlap.max() < 0.3


def test_same_seed_same_pictures_another_seed_others():
    first, again, other = (scenes.val_scene(seed, 3) for seed in (0, 0, 1))
    assert torch.equal(first.images, again.images) and torch.equal(first.boxes_xyxy, again.boxes_xyxy)
    assert first.images.shape != other.images.shape or not torch.equal(first.images, other.images)
    streams = [train_scenes.Stream(0, stream, 1, CPU).next().images for stream in (0, 0, 1)]
    assert torch.equal(streams[0], streams[1]) and not torch.equal(streams[0], streams[2])


def test_annotations_are_coco(tmp_path, capsys):
    from pycocotools import coco

    path = scenes.write_val(tmp_path / "val", 4, seed=2)
    loaded = coco.COCO(str(path))
    assert len(loaded.getImgIds()) == 4 and sorted(loaded.getCatIds()) == list(scenes.CATEGORY_IDS)
    assert tuple(category["name"] for category in loaded.loadCats(scenes.CATEGORY_IDS)) == scenes.LABELS
    for image in loaded.loadImgs(loaded.getImgIds()):
        with Image.open(tmp_path / "val" / "images" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"]) and picture.mode == "RGB"
        assert 480 <= image["width"] <= 640 and 360 <= image["height"] <= 640
        own = loaded.loadAnns(loaded.getAnnIds(imgIds=image["id"]))
        assert own
        for found in own:
            left, top, width, height = found["bbox"]
            assert (
                0 <= left < left + width <= image["width"] + 0.01 and 0 <= top < top + height <= image["height"] + 0.01
            )
            assert 0 < found["area"] <= width * height * 1.01 and found["iscrowd"] == 0
    shorter = json.loads(scenes.write_val(tmp_path / "shorter", 2, seed=2).read_text())
    longer = json.loads(path.read_text())
    assert longer["images"][:2] == shorter["images"]
    assert longer["annotations"][: len(shorter["annotations"])] == shorter["annotations"]


def test_category_ids_have_gaps():
    assert list(scenes.CATEGORY_IDS) == sorted(set(scenes.CATEGORY_IDS))
    assert len(scenes.CATEGORY_IDS) == len(scenes.LABELS) < scenes.CATEGORY_IDS[-1]


def test_encode_is_the_inverse_of_decode(rendered):
    defaults = default_boxes()
    which, taken = ssd_loss.match(rendered.boxes_xyxy, rendered.labels, defaults)
    boxes = rendered.boxes_xyxy.gather(1, which[..., None].expand(-1, -1, 4))
    loc = ssd_loss.encode(boxes, defaults)
    decoded, _ = decode_boxes(loc, torch.zeros(len(loc), 2, loc.shape[2]), defaults)
    assert (decoded - boxes)[taken > 0].abs().max() < 1e-5


def test_every_object_has_a_default_box_and_every_matched_one_overlaps(rendered):
    defaults = default_boxes()
    which, taken = ssd_loss.match(rendered.boxes_xyxy, rendered.labels, defaults)
    overlap = ssd_loss.pair_iou(rendered.boxes_xyxy, to_xyxy(defaults))
    for picture, labels in enumerate(rendered.labels):
        own = taken[picture] > 0
        objects = torch.where(labels > 0)[0].tolist()
        assert set(which[picture, own].tolist()) == set(objects)
        assert torch.equal(taken[picture, own], labels[which[picture, own]])
        best, _ = overlap[picture, objects].max(0)
        assert own[best >= 0.5].all()
        assert (own & (best < 0.5)).sum() <= len(objects)


def test_objects_that_want_the_same_default_box_get_one_each():
    boxes = torch.tensor([[[0.1, 0.1, 0.13, 0.13], [0.1, 0.1, 0.131, 0.13], [0.0, 0.0, 0.0, 0.0]]])
    which, taken = ssd_loss.match(boxes, torch.tensor([[4, 9, 0]]), default_boxes())
    assert sorted(taken[taken > 0].tolist()) == [4, 9] and sorted(which[taken > 0].tolist()) == [0, 1]


def test_learning_rate_warms_up_and_ends_at_zero():
    rates = [train_scenes.rate_at(i / 100, 1.0) for i in range(101)]
    peak = rates.index(max(rates))
    assert peak == 5 and rates[0] == 0.01 and rates[-1] == 0
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)


def test_average_follows_at_first_and_steadies_later():
    for count, moved in ((1, 9 / 11), (100_000, 1 - train_scenes.AVERAGE)):
        averaged = [torch.zeros(2), torch.zeros(3)]
        train_scenes.move_average(averaged, [torch.ones(2), torch.ones(3)], torch.tensor(count))
        assert torch.cat(averaged).tolist() == pytest.approx([moved] * 5, rel=1e-4)


def test_perfect_outputs_cost_nothing_and_wrong_ones_do(rendered):
    defaults = default_boxes()
    which, taken = ssd_loss.match(rendered.boxes_xyxy, rendered.labels, defaults)
    loc = ssd_loss.encode(rendered.boxes_xyxy.gather(1, which[..., None].expand(-1, -1, 4)), defaults)
    conf = 30 * torch.nn.functional.one_hot(taken, len(scenes.LABELS) + 1).transpose(1, 2).float()
    good = ssd_loss.detection_losses(loc, conf, rendered, defaults)
    assert [loss.item() for loss in good] == pytest.approx([0, 0], abs=1e-5)
    flat = ssd_loss.detection_losses(loc + 1, torch.zeros_like(conf), rendered, defaults)
    classes = len(scenes.LABELS) + 1
    assert flat[0].item() == pytest.approx(4 * (1 - ssd_loss.SMOOTH_L1_BETA / 2), rel=1e-4)
    assert flat[1].item() >= 4 * np.log(classes) - 1e-3  # at least three negatives for each positive; ties add more


@pytest.mark.slow
def test_loss_goes_down_on_one_batch():
    training = train_scenes.Training(train_scenes.new_model(0, 10), CPU, 2)
    training.peak = 0.01
    truth = train_scenes.Stream(0, scenes.TRAIN, 2, CPU).next()
    losses = [training.step(truth, 0.2).sum().item() for _ in range(4)]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.slow
def test_smoke_run_writes_what_export_takes(tmp_path):
    train_scenes.main(["--out", str(tmp_path), "--smoke", "--device", "cpu"])
    labels = (tmp_path / "labels.txt").read_text().split("\n")[:-1]
    model = build_model(tmp_path / "scenes.pt", labels=labels, trust=True)
    assert model.labels == ("background", *scenes.LABELS) and model.num_classes == 11
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["steps"] == 2 and record["settings"]["batch"] == 2 and str(tmp_path) not in json.dumps(record)
    assert len(json.loads((tmp_path / "val" / "annotations.json").read_text())["images"]) == 3


def test_no_minutes_write_pictures_only(tmp_path):
    train_scenes.main(["--out", str(tmp_path), "--minutes", "0", "--val", "1", "--device", "cpu"])
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["000001.jpg", "annotations.json"]
