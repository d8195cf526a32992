"""From the eager model to a TorchScript module on disk: FP32, not frozen, any batch size."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from ssdtrt import config
from ssdtrt.artifact import torchscript
from ssdtrt.artifact.metadata import ExportInfo, ModelInfo, ModuleMetadata, TensorSpec, add_metadata, now
from ssdtrt.engine.parity import relative_l2
from ssdtrt.errors import ParityError
from ssdtrt.images.preprocess import check_preprocess
from ssdtrt.images.tensors import synthetic_images
from ssdtrt.model.boxes import default_boxes
from ssdtrt.model.labels import class_names
from ssdtrt.model.ssd import SSD300
from ssdtrt.system.devices import tf32_disabled
from ssdtrt.system.outputs import check_output, writing
from ssdtrt.system.progress import Progress, silent
from ssdtrt.system.versions import installed_versions, this_machine

_EXPORT_BOUND = 1e-5
_CHECK_BATCH = 3


def export_module(
    model: SSD300,
    out: str | Path = config.MODULE_FILE,
    *,
    method: str = config.METHOD,
    preprocess: str = config.PREPROCESS,
    progress: Progress = silent,
) -> Path:
    """Write a model as a TorchScript module, checked against the eager model.

    The check runs on a batch of another size than the one that was traced.

    Args:
        model: The model; `build_model` makes one.
        out: The file to write.
        method: `trace` or `script`.
        preprocess: How pictures are prepared for this network: `eval`, the whole picture resized, or `hub`, its center
            crop. It is recorded in the file and in everything that is made from it.
        progress: Called with a line that says what is done.

    Returns:
        The path of the file.

    Raises:
        ArtifactError: Where `out` cannot be written.
        ImageError: For another `preprocess`.
        ParityError: Where an output's relative L2 distance is above 1e-5; nothing is written.
    """
    check_preprocess(preprocess)
    out = check_output(out)
    progress(f"exporting the module ({method})")
    module = to_torchscript(model, method)
    images = synthetic_images(_CHECK_BATCH, seed=config.SEED + 1)
    with torch.no_grad():
        pairs = list(zip(("loc", "conf"), module(images), model(images)))
    for name, found, expected in pairs:
        distance = relative_l2(found, expected)
        if not distance <= _EXPORT_BOUND:
            raise ParityError(
                f"The exported module's {name} is {distance:.1e} from the eager model's; nothing was written."
            )
    with writing(out) as temporary:
        torchscript.save(module, temporary)
        add_metadata(temporary, _module_metadata(model, method, preprocess))
    return out


def to_torchscript(model: SSD300, method: str) -> torch.jit.ScriptModule:
    """Trace or script the model, in memory.

    Tracing writes the TF32 switch of the moment into every convolution, so TF32 is disabled then.
    """
    with torchscript.quiet(), torch.no_grad(), tf32_disabled(autotune=False):
        if method == "script":
            return torch.jit.script(model)
        return torch.jit.trace(model, synthetic_images(config.BATCH_SIZE), check_trace=False)


def _module_metadata(model: SSD300, method: str, preprocess: str) -> ModuleMetadata:
    """The metadata of an exported module."""
    images = ("N", 3, config.IMAGE_SIZE, config.IMAGE_SIZE)
    return ModuleMetadata(
        schema=config.SCHEMA,
        created=now(),
        versions=installed_versions(),
        machine=this_machine(),
        model=ModelInfo(
            labels=tuple(getattr(model, "labels", None) or class_names(model.num_classes, None)),
            preprocess=preprocess,  # type: ignore[arg-type]  # `check_preprocess` knows it.
            weights=getattr(model, "source", None),
            num_classes=model.num_classes,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            default_boxes_sha256=hashlib.sha256(default_boxes().numpy().tobytes()).hexdigest(),
        ),
        inputs=(TensorSpec("images", images, "float32"),),
        outputs=(
            TensorSpec("loc", ("N", 4, config.NUM_BOXES), "float32"),
            TensorSpec("conf", ("N", model.num_classes, config.NUM_BOXES), "float32"),
        ),
        export=ExportInfo(method),
    )
