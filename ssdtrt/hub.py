"""NVIDIA's two torch.hub entries, `nvidia_ssd` and `nvidia_ssd_processing_utils`, with the same calls.

A notebook that was written for NVIDIA's entries runs with these: torch.hub.load(FOLDER, "nvidia_ssd", source="local").
"""

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
from PIL import Image
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ssdtrt import config
from ssdtrt.errors import ImageError, WeightsError
from ssdtrt.images.decode import load_image
from ssdtrt.images.preprocess import center_crop
from ssdtrt.model.boxes import default_boxes
from ssdtrt.model.nms import detect
from ssdtrt.model.random import reference_init
from ssdtrt.model.ssd import SSD300
from ssdtrt.model.weights import build_model

_MAX_DETECTIONS = 20
_THRESHOLD = 0.3
_TIMEOUT = 30  # seconds without a byte
_MAX_BYTES = 1 << 26  # of a picture fetched
_MODEL_MATHS = ("fp32", "fp16")


def nvidia_ssd(
    pretrained: bool = True,
    *,
    model_math: str = "fp32",
    weights: str | Path = config.WEIGHTS,
    force_reload: bool = False,
) -> SSD300:
    """Build SSD300 on the CPU: images [N, 3, 300, 300] -> (loc [N, 4, 8732], conf [N, 81, 8732]).

    Args:
        pretrained: Whether the model has `weights`, in eval mode and without gradients. Otherwise it is initialized as
            the reference is, to be trained. No ImageNet weights are fetched.
        model_math: `fp32`, or `fp16` for half precision except in the BatchNorm layers, which needs a GPU.
        weights: `coco` for NVIDIA's checkpoint, which is fetched once; a checkpoint's path; or `scenes` or
            `random` (see `build_model`).
        force_reload: Only False is supported: a checkpoint is fetched again once its file is removed.

    Returns:
        The model, a `torch.nn.Module`.

    Raises:
        WeightsError: For another `model_math`, for `force_reload`, and if the weights cannot be fetched or read.

    Example:
        >>> from ssdtrt.hub import nvidia_ssd
        >>> model = nvidia_ssd(pretrained=False)
        >>> model.training, model.num_classes
        (True, 81)
    """
    if model_math not in _MODEL_MATHS:
        raise WeightsError(f"model_math is {model_math!r}; expected {' or '.join(map(repr, _MODEL_MATHS))}.")
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
    """Return what NVIDIA's notebook prepares pictures and decodes outputs with: see `Processing`."""
    return Processing()


class Processing:
    """The utilities of NVIDIA's notebook.

    Boxes are fractions, 0..1, of the prepared picture, which is the original's center crop.

    Example:
        >>> import numpy as np
        >>> from ssdtrt.hub import nvidia_ssd, nvidia_ssd_processing_utils
        >>> utils = nvidia_ssd_processing_utils()
        >>> tensor = utils.prepare_tensor([np.zeros((300, 300, 3), dtype=np.float32)])
        >>> model = nvidia_ssd(pretrained=False).eval().to(tensor.device)
        >>> boxes_xyxy, labels, scores = utils.decode_results(model(tensor))[0]
        >>> boxes_xyxy.shape[1], len(labels) == len(scores) <= 20
        (4, True)
    """

    @staticmethod
    def prepare_input(picture: str | Path | BinaryIO) -> np.ndarray:
        """Prepare one picture.

        It is turned upright (EXIF), its shorter side is resized to 300, and the center of the longer one is cropped
        (see `ssdtrt.images.preprocess.center_crop`). `Detector` rounds the same pixels to bytes.

        Args:
            picture: A path, an http or https address, or an open file.

        Returns:
            float32 [300, 300, 3] in -1..1.

        Raises:
            ImageError: If it cannot be fetched or read.
        """
        if isinstance(picture, str) and picture.lower().startswith(("http://", "https://")):
            image = _fetch_image(picture)
        else:
            image = load_image(picture)
        mean, std = (np.array(part, np.float32) for part in config.NORMALIZATION["hub"])
        return (center_crop(image) / 255 - mean) / std

    @staticmethod
    def prepare_tensor(inputs: Sequence[np.ndarray], fp16: bool = False) -> Tensor:
        """Stack prepared pictures, on the GPU if there is one.

        Args:
            inputs: N arrays [300, 300, 3] of `prepare_input`.
            fp16: Whether the result is float16 in place of float32.

        Returns:
            A tensor [N, 3, 300, 300].

        Raises:
            ImageError: For arrays of another shape, or none.
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
        """Decode the network's outputs, and suppress overlapping boxes.

        Args:
            predictions: (loc [N, 4, A], conf [N, C, A]).

        Returns:
            For each picture [boxes_xyxy [K, 4], labels [K], scores [K]], K <= 20, the lowest score first. Labels are
            1..C-1, so that `get_coco_object_dictionary()[label - 1]` is the name.
        """
        loc, conf = (part.detach() for part in predictions)
        found = detect(loc, conf, default_boxes().to(loc.device), _MAX_DETECTIONS)
        return [[part.flip(0).cpu().numpy() for part in detections] for detections in found]

    @staticmethod
    def pick_best(detections: Sequence[np.ndarray], threshold: float = _THRESHOLD) -> list[np.ndarray]:
        """Select the detections of one picture with a score above `threshold`.

        Args:
            detections: [boxes_xyxy [K, 4], labels [K], scores [K]], as `decode_results` returns them.
            threshold: 0..1.

        Returns:
            The same for those selected.
        """
        best = detections[2] > threshold
        return [part[best] for part in detections]

    @staticmethod
    def get_coco_object_dictionary() -> list[str]:
        """Return the 80 names of COCO's classes; label 1 is the first."""
        return list(config.COCO_LABELS[1:])


def _fetch_image(url: str) -> Image.Image:
    """The picture at an address, upright RGB, through the proxy that the environment names."""
    opener = urllib.request.build_opener()  # A new one, so that the proxy variables are those of now.
    try:
        with opener.open(url, timeout=_TIMEOUT) as response:
            content = response.read(_MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        error.close()
        raise ImageError(f"{url} answered {error.code} ({error.reason}).") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ImageError(f"{url} cannot be fetched ({getattr(error, 'reason', error)}).") from error
    if len(content) > _MAX_BYTES:
        raise ImageError(f"{url} is larger than {_MAX_BYTES:,} bytes.")
    file = io.BytesIO(content)
    file.name = url  # The name in messages.
    return load_image(file)
