"""The records of a run on a cluster: its settings, its manifest, a block that is done, its report. No torch here."""

from __future__ import annotations

from ssdtrt import config
from ssdtrt.system.digests import Digest
from ssdtrt.system.report import Report


class BatchSettings(Report, frozen=True, kw_only=True):
    """What changes the rows of a run, beside the engine and the pictures.

    Attributes:
        threshold: The lowest score that is reported, 0..1.
        max_detections: The most detections of a picture.
        classes: The numbers of the classes that are reported; None for all.
        nms_iou: The IoU with a better box of its class from which on a box is left out.
        value_range: Which values of pictures of more than 8 bits become black and white; None for what each one fills.
        max_pixels: The most pixels of a picture; None for Pillow's limit.
        allow_private: Whether pictures are also fetched from private networks.
        max_bytes: The most bytes of a picture that is fetched.
        decode: Where JPEG files are decoded: `auto`, `gpu` or `cpu`.
    """

    threshold: float = config.THRESHOLD
    max_detections: int = config.MAX_DETECTIONS
    classes: tuple[int, ...] | None = None
    nms_iou: float = config.NMS_IOU
    value_range: tuple[float, float] | None = None
    max_pixels: int | None = None
    allow_private: bool = False
    max_bytes: int = config.MAX_BYTES
    decode: str = config.DECODE[0]


class BatchManifest(Report, frozen=True, kw_only=True):
    """What the Parquet files of a folder belong to: the same engine, settings and list give the same rows.

    Attributes:
        file: The engine, as it was given.
        sha256: Its SHA-256.
        labels: The names of its classes, the background first.
        settings: The settings.
        pictures: How many pictures the list has.
        list_sha256: The SHA-256 of the list: of each path in UTF-8 and a NUL after it.
        block_size: How many pictures a Parquet file has; the last one has the rest.
        blocks: How many Parquet files there will be.
    """

    kind = "batch-manifest"

    file: str
    sha256: Digest
    labels: tuple[str, ...]
    settings: BatchSettings
    pictures: int
    list_sha256: Digest
    block_size: int
    blocks: int

    def pictures_of(self, block: int) -> slice:
        """Return which pictures of the list a block has."""
        return slice(block * self.block_size, min((block + 1) * self.block_size, self.pictures))


class BlockDone(Report, frozen=True):
    """A block that is written: what the footer of its Parquet file says of it.

    Attributes:
        block: Its number, from 0.
        run: The SHA-256 of the manifest that it belongs to.
        pictures: How many rows it has.
        detections: How many objects were found.
        errors: How many pictures could not be read.
        first_error: Why the first of them could not; "" where all could.
    """

    block: int
    run: Digest
    pictures: int
    detections: int
    errors: int
    first_error: str = ""


class BatchReport(Report, frozen=True, kw_only=True):
    """What a run on a cluster did; the detections are in the Parquet files.

    Attributes:
        file: What detected.
        precision: The precision that it computes in.
        folder: The folder of the Parquet files and the manifest.
        pictures: How many rows there are.
        detections: How many objects they have.
        errors: How many pictures could not be read.
        first_error: Why the first of them could not; "" where all could.
        blocks: How many Parquet files there are.
        blocks_before: How many of them were there before this run.
        nodes: How many machines the detecting actors could run on; 0 where nothing was left to do.
        actors: How many actors detected; 0 where nothing was left to do.
        device: What they ran on, `cuda` or `cpu`; None where nothing was left to do.
        decoded_on: Where JPEG files were decoded, `gpu` or `cpu`; None where nothing was left to do.
        seconds: From the first block that was begun to the last that was written, the start of the actors included.
        images_per_second: Pictures of this run a second.
    """

    kind = "detect-batch"

    file: str
    precision: str
    folder: str
    pictures: int
    detections: int
    errors: int
    first_error: str
    blocks: int
    blocks_before: int
    nodes: int
    actors: int
    device: str | None
    decoded_on: str | None
    seconds: float
    images_per_second: float
