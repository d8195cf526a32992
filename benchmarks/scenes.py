"""Generated scenes: simple shapes on noisy backgrounds, with boxes that are tight to the pixels that can be seen.

A detector trained on them (train_scenes.py) has an accuracy that can be measured, so that what FP16 costs can be measured
too, without a data set that someone else must provide. Shapes stand in fractions of the picture, so one layout can be
rendered at any size. `render` works on a whole batch at once, on any device.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

LABELS = ("disc", "rectangle", "triangle", "ring", "cross", "star", "dome", "diamond", "frame", "ell")
CATEGORY_IDS = (1, 2, 4, 7, 11, 16, 22, 29, 37, 46)  # with gaps, as COCO's are
MIN_OBJECTS, MAX_OBJECTS = 3, 8  # K = MAX_OBJECTS places a picture, of which some stay empty
SIZES = (0.075, 0.6)  # the square root of a box's area, in fractions of the picture
RATIO = 2.0  # width over height lies between 1 / RATIO and RATIO
MARGIN = 0.01  # between a shape and the picture's edge
MAX_COVER = 0.3  # the part of a box's area that a larger shape's box may share
PLACES_TRIED = 24
COLORS_TRIED = 8
CONTRAST = 0.5  # the least distance of a shape's color from the background's, in RGB 0..1
LINES = 5
FINE = 2  # masks are drawn this many times finer than the picture, and averaged
VAL_WIDTHS, VAL_HEIGHTS = (480, 640), (360, 640)
TRAIN, CHECK, VAL = range(3)  # streams of random numbers that never meet


def inside(label: int, u: Tensor, v: Tensor) -> Tensor:
    """Which points belong to the shape LABELS[label]: u [N, 1, W] and v [N, H, 1] -> bool [N, H, W].

    u and v run from -1 to 1 over the shape's box, v downwards, and every shape touches all four sides of it.
    """
    a, b = u.abs(), v.abs()
    name = LABELS[label]
    if name == "disc":
        return u**2 + v**2 <= 1
    if name == "rectangle":
        return (a <= 1) & (b <= 1)
    if name == "triangle":
        return (a <= (v + 1) / 2) & (b <= 1)
    if name == "ring":
        return (u**2 + v**2 - 0.65).abs() <= 0.35
    if name == "cross":
        return (a <= 1) & (b <= 0.3) | (a <= 0.3) & (b <= 1)
    if name == "star":
        return torch.maximum(a, b) + 2.5 * torch.minimum(a, b) <= 1
    if name == "dome":
        return (u**2 + ((1 - v) / 2) ** 2 <= 1) & (v <= 1)
    if name == "diamond":
        return a + b <= 1
    if name == "frame":
        return (torch.maximum(a, b) - 0.8).abs() <= 0.2
    return (a <= 1) & (b <= 1) & ((u <= -0.3) | (v >= 0.3))  # ell


@dataclass(frozen=True)
class Layout:
    """What B pictures show, in paint order, largest first; sizes are of whole shapes, in fractions of the picture."""

    labels: np.ndarray  # [B, K] in 1..len(LABELS), 0 where there is no object
    center: np.ndarray  # [B, K, 2]
    size: np.ndarray  # [B, K, 2]
    flip: np.ndarray  # [B, K, 2] of -1 and 1
    paint: np.ndarray  # [B, K, 13]: RGB, its slopes in x and y, a wave's frequencies in x and y, phase and height
    background: np.ndarray  # [B, 3]


def random_numbers(seed: int, stream: int, index: int = 0) -> np.random.Generator:
    """The random numbers of one picture, or of one run, of a stream."""
    return np.random.default_rng([seed, stream, index])


def draw_layout(random: np.random.Generator, count: int) -> Layout:
    """`count` layouts."""
    shape = (count, MAX_OBJECTS)
    wanted = np.arange(MAX_OBJECTS) < random.integers(MIN_OBJECTS, MAX_OBJECTS + 1, (count, 1))
    sides = np.exp(random.uniform(*np.log(SIZES), shape))
    sides = -np.sort(-np.where(wanted, sides, 0), axis=1)
    stretch = np.exp(random.uniform(-0.5, 0.5, shape) * np.log(RATIO))
    size = np.stack([sides * stretch, sides / stretch], axis=-1)
    center, placed = place(random, size)
    labels = np.where(placed, random.integers(1, len(LABELS) + 1, shape), 0)
    background = random.uniform(0.15, 0.85, (count, 3))
    colors = random.uniform(0, 1, (*shape, COLORS_TRIED, 3))
    distance = np.linalg.norm(colors - background[:, None, None], axis=-1)
    distance = np.where(distance >= CONTRAST, 9, distance)  # the first that is far enough, else the farthest
    color = np.take_along_axis(colors, distance.argmax(-1)[..., None, None], axis=2)[:, :, 0]
    slopes = random.uniform(-0.3, 0.3, (*shape, 2, 3))
    color = color - (slopes * (center - 0.5)[..., None]).sum(2)
    turn, frequency = random.uniform(0, 2 * np.pi, (2, *shape)), random.uniform(30, 120, shape)
    height = np.maximum(random.uniform(-0.1, 0.1, shape), 0)  # half of the shapes have no wave
    wave = [frequency * np.cos(turn[0]), frequency * np.sin(turn[0]), turn[1], height]
    paint = np.concatenate([color, slopes.reshape(*shape, 6), np.stack(wave, axis=-1)], axis=-1)
    return Layout(labels, center, size, random.choice([-1.0, 1.0], (*shape, 2)), paint, background)


def place(random: np.random.Generator, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centers [B, K, 2] for boxes of `size` [B, K, 2], largest first, and which found a place [B, K].

    A box lies in the picture and shares at most MAX_COVER of its area with each larger one.
    """
    count, places = size.shape[:2]
    center, placed = np.zeros_like(size), np.zeros((count, places), dtype=bool)
    for k in range(places):
        room = 1 - 2 * MARGIN - size[:, None, k]
        tried = MARGIN + size[:, None, k] / 2 + room * random.uniform(0, 1, (count, PLACES_TRIED, 2))  # [B, T, 2]
        apart = np.abs(tried[:, :, None] - center[:, None, :k])  # [B, T, k, 2]
        half_sum = (size[:, None, None, k] + size[:, None, :k]) / 2
        shared = np.minimum(half_sum - apart, np.minimum(size[:, None, None, k], size[:, None, :k])).clip(0).prod(-1)
        free = (shared <= MAX_COVER * size[:, None, None, k].prod(-1)) | ~placed[:, None, :k]
        good = free.all(-1) & (room.min(-1) > 0)  # [B, T]
        center[:, k] = tried[np.arange(count), good.argmax(-1)]
        placed[:, k] = good.any(-1) & (size[:, k, 0] > 0)
    return center, placed


@dataclass(frozen=True)
class Scenes:
    """B pictures and what is in them; boxes are around the pixels that can be seen, 0 where there is no object."""

    images: Tensor  # uint8 [B, 3, H, W]
    boxes_xyxy: Tensor  # [B, K, 4], fractions of the picture
    labels: Tensor  # [B, K] in 1..len(LABELS), 0 where there is no object
    areas: Tensor  # [B, K], the pixels that can be seen


def render(layout: Layout, height: int, width: int, generator: torch.Generator, device: torch.device | str) -> Scenes:
    """The pictures of a layout; `generator`, of any device, draws the backgrounds."""
    visible = visible_masks(layout, height, width, device)  # [B, K, FINE * H, FINE * W]
    count, places = visible.shape[:2]
    boxes_xyxy, pixels = tight_boxes(visible)
    labels = upload(layout.labels, device, torch.int64) * (pixels > 0)
    shares = functional.avg_pool2d(visible.to(torch.float16 if visible.is_cuda else torch.float32), FINE).float()
    paint = upload(layout.paint, device)
    fields = torch.bmm(paint.transpose(1, 2), shares.reshape(count, places, -1)).reshape(count, -1, height, width)
    x, y = axes(height, width, device)
    shapes = fields[:, :3] + fields[:, 3:6] * (x - 0.5) + fields[:, 6:9] * (y - 0.5)
    shapes = shapes + fields[:, 12:] * torch.sin(fields[:, 9:10] * x + fields[:, 10:11] * y + fields[:, 11:12])
    pictures = draw_background(upload(layout.background, device), height, width, generator)
    pictures = pictures * (1 - shares.sum(1, keepdim=True)) + shapes
    grain = torch.randn(count, 1, height, width, generator=generator, device=generator.device)
    strength = torch.rand(count, 1, 1, 1, generator=generator, device=generator.device) * 0.05
    pictures = pictures + (grain * strength).to(device)
    images = pictures.clamp(0, 1).mul(255).round().to(torch.uint8)
    return Scenes(images, boxes_xyxy, labels, pixels / FINE**2)


def visible_masks(layout: Layout, height: int, width: int, device: torch.device | str) -> Tensor:
    """Which points of a grid FINE times finer than the picture show each object: bool [B, K, FINE * H, FINE * W]."""
    count, places = layout.labels.shape
    x, y = axes(FINE * height, FINE * width, device)
    order = layout.labels.ravel().argsort(kind="stable")  # by class, so that each class is drawn at once
    ends = np.searchsorted(layout.labels.ravel()[order], np.arange(len(LABELS) + 2))
    frames = np.concatenate([layout.center, 2 * layout.flip / layout.size.clip(1e-6)], axis=-1).reshape(-1, 4)[order]
    frames = upload(frames, device)[:, :, None, None]  # [B * K, 4, 1, 1]
    u, v = (x - frames[:, 0]) * frames[:, 2], (y - frames[:, 1]) * frames[:, 3]  # [B * K, 1, W], [B * K, H, 1]
    drawn = torch.zeros(count * places, FINE * height, FINE * width, dtype=torch.bool, device=device)
    for label in range(1, len(LABELS) + 1):
        mine = slice(ends[label], ends[label + 1])
        drawn[mine] = inside(label - 1, u[mine], v[mine])
    masks = drawn[upload(order.argsort(), device, torch.int64)].view(count, places, FINE * height, FINE * width)
    hidden = torch.zeros_like(masks[:, 0])
    for k in reversed(range(places)):  # the last painted lies on top
        mask = masks[:, k].clone()
        masks[:, k] &= ~hidden
        hidden |= mask
    return masks


def tight_boxes(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes xyxy [B, K, 4], 0..1, around the set points of masks [B, K, H, W], and how many are set [B, K]."""
    rows, columns = masks.sum(3), masks.any(2)  # [B, K, H], [B, K, W]
    pixels = rows.sum(2)
    sides = []
    for line in (columns, rows > 0):
        line = line.byte()
        sides.append((line.argmax(2) / line.shape[2], 1 - line.flip(2).argmax(2) / line.shape[2]))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], dim=2) * (pixels > 0)[..., None], pixels


def draw_background(base: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
    """A color [B, 3] with clouds of three sizes and a few lines over it: [B, 3, H, W]."""
    count, device = base.shape[0], base.device

    def random(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator, device=generator.device).to(device)

    pictures = base[:, :, None, None].expand(-1, -1, height, width)
    for cells, strength in ((3, 0.3), (10, 0.15), (40, 0.1)):
        clouds = (random(3, cells, cells) - 0.5) * strength
        clouds = functional.interpolate(clouds, size=(height, width), mode="bilinear", align_corners=True)
        pictures = pictures + clouds
    x, y = axes(height, width, device)
    for numbers in random(LINES, 6, 1, 1, 1).unbind(1):
        turn, offset, thickness = numbers[:, 0] * torch.pi, numbers[:, 1] * 1.4 - 0.2, numbers[:, 2] * 0.006 + 0.001
        distance = ((x - offset) * turn.cos() + (y - offset) * turn.sin()).abs()  # [B, 1, H, W]
        share = ((thickness - distance) * max(height, width) + 0.5).clamp(0, 1)
        pictures = pictures + share * (numbers[:, 3:, 0] - pictures)
    return pictures


def axes(height: int, width: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """The pixels' centers as fractions of the picture: x [1, W] and y [H, 1]."""
    x = (torch.arange(width, device=device) + 0.5) / width
    y = (torch.arange(height, device=device) + 0.5) / height
    return x[None], y[:, None]


def upload(values: np.ndarray, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Tensor:
    """An array as a tensor on `device`, without waiting for what a GPU is still computing."""
    tensor = torch.from_numpy(values).to(dtype)
    if torch.device(device).type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def val_scene(seed: int, index: int, device: torch.device | str = "cpu", scale: float = 1.0) -> Scenes:
    """Picture `index` of the validation set, a batch of one, of its own size; the same however many there are."""
    random = random_numbers(seed, VAL, index)
    width, height = (int(scale * random.integers(low, high + 1)) for low, high in (VAL_WIDTHS, VAL_HEIGHTS))
    generator = torch.Generator().manual_seed(int(random.integers(2**62)))
    return render(draw_layout(random, 1), height, width, generator, device)


def write_val(
    folder: Path,
    count: int,
    seed: int,
    device: torch.device | str = "cpu",
    workers: int = 8,
    scale: float = 1.0,
    quality: int = 95,
) -> Path:
    """Writes `count` pictures to `folder`/images and their COCO annotations, and returns the annotations' path."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    categories = [{"id": number, "name": name, "supercategory": "shape"} for number, name in zip(CATEGORY_IDS, LABELS)]
    images, annotations = [], []
    with ThreadPoolExecutor(workers) as pool:
        saving = []
        for index in range(count):
            scene = val_scene(seed, index, device, scale)
            pixels = scene.images[0].permute(1, 2, 0).cpu().numpy()  # [H, W, 3]
            height, width = pixels.shape[:2]
            name = f"{index + 1:06d}.jpg"
            saving.append(
                pool.submit(Image.fromarray(pixels).save, folder / "images" / name, quality=quality, subsampling=0)
            )
            images.append({"id": index + 1, "file_name": name, "width": width, "height": height})
            sides = torch.tensor([width, height, width, height])
            boxes = (scene.boxes_xyxy[0].cpu() * sides).tolist()
            for box, label, area in zip(boxes, scene.labels[0].tolist(), scene.areas[0].tolist()):
                if label:
                    annotations.append(annotation(len(annotations) + 1, index + 1, label, box, area))
        for saved in saving:
            saved.result()
    path = folder / "annotations.json"
    info = {"description": f"Generated scenes, seed {seed}"}
    content = {"info": info, "images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def annotation(number: int, image: int, label: int, box_ltrb: list[float], area: float) -> dict:
    """One object in COCO's form, in the picture's pixels; its area is that of what can be seen."""
    left, top, right, bottom = box_ltrb
    bbox = [round(value, 2) for value in (left, top, right - left, bottom - top)]
    category = CATEGORY_IDS[label - 1]
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, "area": area, "iscrowd": 0}
