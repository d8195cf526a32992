"""From the eager model to a TorchScript module on disk: FP32, not frozen, any batch size."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from ssdtrt import config
from ssdtrt.system import machine
from ssdtrt.artifact import torchscript
from ssdtrt.artifact.metadata import add_metadata, check_output, new_metadata, writing
from ssdtrt.errors import ParityError
from ssdtrt.system.files import Progress, silent
from ssdtrt.images.tensors import synthetic_images
from ssdtrt.model.boxes import default_boxes
from ssdtrt.model.ssd import SSD300
from ssdtrt.model.weights import class_names
from ssdtrt.engine.parity import relative_l2
from ssdtrt.images.decode import check_preprocess

EXPORT_BOUND = 1e-5
CHECK_BATCH = 3


def export_module(
    model: SSD300,
    out: str | Path = config.MODULE_FILE,
    *,
    method: str = config.METHOD,
    preprocess: str = config.PREPROCESS,
    progress: Progress = silent,
) -> Path:
    """Writes `model` as a TorchScript module, checked against the eager model, and returns its path.

    `method` is `trace` or `script`. `preprocess`, `eval` or `hub`, is how pictures are to be prepared for this network;
    it is recorded in the file, and all that is made from the file prepares pictures so. The check runs on a batch of
    another size than the one that was traced; beyond a relative L2 distance of 1e-5 nothing is written and ParityError
    is raised. Raises ArtifactError where `out` cannot be written, ImageError for another `preprocess`.
    """
    check_preprocess(preprocess)
    out = check_output(out)
    progress(f"exporting the module ({method})")
    module = to_torchscript(model, method)
    images = synthetic_images(CHECK_BATCH, seed=config.SEED + 1)
    with torch.no_grad():
        pairs = list(zip(("loc", "conf"), module(images), model(images)))
    for name, found, expected in pairs:
        distance = relative_l2(found, expected)
        if not distance <= EXPORT_BOUND:
            raise ParityError(
                f"The exported module's {name} is {distance:.1e} from the eager model's; nothing was written."
            )
    with writing(out) as temporary:
        torchscript.save(module, temporary)
        add_metadata(temporary, module_metadata(model, method, preprocess))
    return out


def to_torchscript(model: SSD300, method: str) -> torch.jit.ScriptModule:
    """The model traced or scripted, in memory.

    Tracing writes the TF32 switch of the moment into every convolution, so it is off then.
    """
    with torchscript.quiet(), torch.no_grad(), machine.plain_fp32(autotune=False):
        if method == "script":
            return torch.jit.script(model)
        return torch.jit.trace(model, synthetic_images(config.BATCH_SIZE), check_trace=False)


def module_metadata(model: SSD300, method: str, preprocess: str) -> dict:
    """The metadata of an exported module."""
    source = getattr(model, "source", None)
    boxes = hashlib.sha256(default_boxes().numpy().tobytes()).hexdigest()
    return {
        **new_metadata("module"),
        "versions": machine.versions(),
        "machine": machine.machine(),
        "model": {
            "architecture": "ssd300-resnet50",
            "num_classes": model.num_classes,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "labels": list(getattr(model, "labels", None) or class_names(model.num_classes, None)),
            "weights": source.as_dict() if source else None,
            "default_boxes_sha256": boxes,
            "preprocess": preprocess,
        },
        "inputs": [{"name": "images", "shape": ["N", 3, config.IMAGE_SIZE, config.IMAGE_SIZE], "dtype": "float32"}],
        "outputs": [
            {"name": "loc", "shape": ["N", 4, config.NUM_BOXES], "dtype": "float32"},
            {"name": "conf", "shape": ["N", model.num_classes, config.NUM_BOXES], "dtype": "float32"},
        ],
        "build": {"method": method, "precision": "fp32"},
    }
