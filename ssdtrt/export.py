"""Export the eager model to a TorchScript module on disk: FP32, not frozen, any batch size."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from ssdtrt import config
from ssdtrt.artifact.metadata import ExportInfo, ModelInfo, ModuleMetadata, TensorSpec, add_metadata, now
from ssdtrt.engine.parity import relative_l2
from ssdtrt.errors import ParityError
from ssdtrt.images.preprocess import check_preprocess
from ssdtrt.images.tensors import synthetic_images
from ssdtrt.model.boxes import default_boxes
from ssdtrt.model.labels import class_names
from ssdtrt.model.ssd import SSD300
from ssdtrt.runners import torchscript
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
    """Export a model to a TorchScript module, compare it with the model, and write it.

    The comparison uses another batch size than the trace, so that a constant batch size would be found.

    Args:
        model: The model, from `build_model`.
        out: The file to write.
        method: `trace` or `script`.
        preprocess: How pictures are prepared for this network: `eval` resizes the whole picture, `hub` takes its center
            crop. The file records it, and so does every file that is built from it.
        progress: Called with one line about the step.

    Returns:
        The path of the file.

    Raises:
        ArtifactError: If `out` cannot be written.
        ImageError: If `preprocess` is unknown.
        ParityError: If an output's relative L2 distance is above 1e-5; nothing is written.

    Example:
        >>> from ssdtrt import build_model, export_module
        >>> export_module(build_model("random"), "ssd300.ts").name
        'ssd300.ts'
    """
    check_preprocess(preprocess)
    out = check_output(out)
    progress(f"exporting the module ({method})")
    module = _to_torchscript(model, method)
    images = synthetic_images(_CHECK_BATCH, seed=config.SEED + 1)
    with torch.no_grad():
        pairs = list(zip(("loc", "conf"), module(images), model(images)))
    for name, found, expected in pairs:
        distance = relative_l2(found, expected)
        if not distance <= _EXPORT_BOUND:
            raise ParityError(
                f"The exported module's {name} differs from the eager model's by {distance:.1e} (relative L2); "
                f"expected at most {_EXPORT_BOUND:.0e}. Nothing was written."
            )
    with writing(out) as temporary:
        torchscript.save(module, temporary)
        add_metadata(temporary, _module_metadata(model, method, preprocess))
    return out


def _to_torchscript(model: SSD300, method: str) -> torch.jit.ScriptModule:
    """Trace or script the model.

    Tracing records the current TF32 setting in every convolution, so TF32 is disabled.
    """
    with torchscript.quiet(), torch.no_grad(), tf32_disabled(autotune=False):
        if method == "script":
            return torch.jit.script(model)
        return torch.jit.trace(model, synthetic_images(config.BATCH_SIZE), check_trace=False)


def _module_metadata(model: SSD300, method: str, preprocess: str) -> ModuleMetadata:
    """Return the metadata of an exported module."""
    images = ("N", 3, config.IMAGE_SIZE, config.IMAGE_SIZE)
    return ModuleMetadata(
        schema=config.SCHEMA,
        created=now(),
        versions=installed_versions(),
        machine=this_machine(),
        model=ModelInfo(
            labels=tuple(getattr(model, "labels", None) or class_names(model.num_classes, None)),
            preprocess=preprocess,  # type: ignore[arg-type]  # Checked by `check_preprocess`.
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
