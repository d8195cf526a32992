"""What NVIDIA's two torch.hub entries do, `nvidia_ssd` and `nvidia_ssd_processing_utils`, with the same calls."""

from __future__ import annotations

import http.client
import io
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ssdtrt import config
from ssdtrt.errors import ImageError, WeightsError
from ssdtrt.images.decode import load_image
from ssdtrt.images.tensors import normalize, prepare
from ssdtrt.model import boxes, nms
from ssdtrt.model.random import reference_init
from ssdtrt.model.ssd import SSD300
from ssdtrt.model.weights import build_model

PREPROCESS = "hub"
MAX_DETECTIONS = 20
THRESHOLD = 0.3
TIMEOUT = 30  # seconds without a byte
MAX_BYTES = 1 << 26  # of a picture fetched
MODEL_MATHS = ("fp32", "fp16")


def nvidia_ssd(
    pretrained: bool = True,
    *,
    model_math: str = "fp32",
    weights: str | Path = config.WEIGHTS,
    force_reload: bool = False,
) -> SSD300:
    """SSD300 on the CPU: images [N, 3, 300, 300] -> (loc [N, 4, 8732], conf [N, 81, 8732]).

    pretrained: with `weights`, in eval mode and without gradients; else freshly initialized as the reference is, to be
        trained. No ImageNet weights are fetched.
    model_math: `fp32`, or `fp16`: half precision but for the BatchNorm layers, for a GPU.
    weights: `coco` (NVIDIA's checkpoint, fetched once), a checkpoint's path, or `random`.
    force_reload: only False; a checkpoint is fetched again once its file is removed.
    Raises WeightsError.
    """
    if model_math not in MODEL_MATHS:
        raise WeightsError(f"model_math is {model_math!r}; expected {' or '.join(map(repr, MODEL_MATHS))}.")
    if force_reload:
        raise WeightsError(
            f"force_reload is not supported: remove {config.COCO_FILE} from {torch.hub.get_dir()}/checkpoints, "
            "and it is fetched again."
        )
    model = build_model(weights) if pretrained else reference_init(SSD300())
    if model_math == "fp16":
        model.half()
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.float()
    return model


def nvidia_ssd_processing_utils() -> Processing:
    """Pictures to the network's input and its answers to detections, as NVIDIA's notebook does: see `Processing`."""
    return Processing()


class Processing:
    """The notebook's utilities. Boxes are fractions, 0..1, of the prepared picture, the middle of the original."""

    @staticmethod
    def prepare_input(picture: str | Path | BinaryIO) -> np.ndarray:
        """A path, an http(s) address or an open file to float32 [300, 300, 3] in -1..1.

        Upright (EXIF), the shorter side scaled to 300, the middle of the longer one. Raises ImageError.
        """
        if isinstance(picture, str) and picture.lower().startswith(("http://", "https://")):
            image = load_fetched(picture)
        else:
            image = load_image(picture)
        images = normalize(prepare(image, PREPROCESS)[None], PREPROCESS)
        return np.ascontiguousarray(images[0].permute(1, 2, 0).numpy())  # [H, W, 3]

    @staticmethod
    def prepare_tensor(inputs: Sequence[np.ndarray], fp16: bool = False) -> Tensor:
        """What `prepare_input` gave, N of them, to a tensor [N, 3, 300, 300] on the GPU where there is one.

        float32, or with `fp16` float16. Raises ImageError for arrays of another shape, or none.
        """
        expected = (config.IMAGE_SIZE, config.IMAGE_SIZE, 3)
        shapes = {np.shape(image) for image in inputs}
        if shapes != {expected}:
            found = ", ".join(map(str, sorted(shapes))) or "none"
            raise ImageError(f"Expected a list of arrays of shape {expected}; found {found}.")
        images = torch.from_numpy(np.stack(inputs)).permute(0, 3, 1, 2)  # [N, 3, H, W]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return images.to(device, torch.float16 if fp16 else torch.float32).contiguous()

    @staticmethod
    def decode_results(predictions: tuple[Tensor, Tensor]) -> list[list[np.ndarray]]:
        """(loc [N, 4, A], conf [N, C, A]) to, for each picture, [boxes_xyxy [K, 4], labels [K], scores [K]], K <= 20.

        The best first. Labels are 1..C-1, so `get_coco_object_dictionary()[label - 1]` is the name.
        """
        loc, conf = (part.detach() for part in predictions)
        found = nms.detect(loc, conf, boxes.default_boxes().to(loc.device), MAX_DETECTIONS)
        return [[part.cpu().numpy() for part in detections] for detections in found]

    @staticmethod
    def pick_best(detections: Sequence[np.ndarray], threshold: float = THRESHOLD) -> list[np.ndarray]:
        """One picture's [boxes_xyxy, labels, scores], those with a score above `threshold` alone."""
        best = detections[2] > threshold
        return [part[best] for part in detections]

    @staticmethod
    def get_coco_object_dictionary() -> list[str]:
        """The 80 names of COCO's classes; label 1 is the first."""
        return list(config.COCO_LABELS[1:])


def load_fetched(url: str):
    """The picture at an address, upright RGB. Honours the proxy variables. Raises ImageError."""
    opener = urllib.request.build_opener()  # A new one, so that the proxy variables are those of now.
    try:
        with opener.open(url, timeout=TIMEOUT) as answer:
            content = answer.read(MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        error.close()
        raise ImageError(f"{url} answered {error.code} ({error.reason}).") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ImageError(f"{url} cannot be fetched ({getattr(error, 'reason', error)}).") from error
    if len(content) > MAX_BYTES:
        raise ImageError(f"{url} is larger than {MAX_BYTES:,} bytes.")
    file = io.BytesIO(content)
    file.name = url  # What a message calls it.
    return load_image(file)
