"""Export the eager model to a file: a TorchScript module, or ONNX; FP32, BatchNorm not folded, any batch size."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from ssdtrt import config
from ssdtrt.artifact.metadata import ExportInfo, ModelInfo, ModuleMetadata, OnnxDetectorMetadata, add_metadata, now
from ssdtrt.artifact.tensors import detector_tensors, module_tensors
from ssdtrt.errors import ArtifactError, SsdtrtError
from ssdtrt.exporting.acceptance import check_graph, check_onnx_file, check_outputs
from ssdtrt.exporting.graph import onnx_model
from ssdtrt.formats.onnx_file import append_record
from ssdtrt.images.preprocess import check_preprocess
from ssdtrt.images.tensors import synthetic_images
from ssdtrt.model.boxes import default_boxes
from ssdtrt.model.labels import class_names
from ssdtrt.model.ssd import SSD300
from ssdtrt.runners import torchscript
from ssdtrt.runners.onnx_runtime import check_installed
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
        ArtifactError: If `out` cannot be written, or has the name of an ONNX file.
        ImageError: If `preprocess` is unknown.
        ParityError: If an output's relative L2 distance is above 1e-5; nothing is written.

    Example:
        >>> from ssdtrt import build_model, export_module
        >>> export_module(build_model("random"), "ssd300.ts").name
        'ssd300.ts'
    """
    check_preprocess(preprocess)
    out = check_output(out)
    if out.suffix == ".onnx":  # Other programs would find no ONNX in it.
        raise ArtifactError(f"{out} has the name of an ONNX file; give --format onnx (export_onnx), or another name.")
    progress(f"exporting the module ({method})")
    module = _to_torchscript(model, method)
    images = synthetic_images(_CHECK_BATCH, seed=config.SEED + 1)
    with torch.no_grad():
        check_outputs("exported module", module(images), model(images), _EXPORT_BOUND)
    with writing(out) as temporary:
        torchscript.save(module, temporary)
        add_metadata(temporary, _metadata(ModuleMetadata, model, method, preprocess))
    return out


def export_onnx(
    model: SSD300,
    out: str | Path | None = None,
    *,
    detector: bool = False,
    preprocess: str = config.PREPROCESS,
    progress: Progress = silent,
) -> Path:
    """Export a model to an ONNX file of opset 17, check and compare it in ONNX Runtime, and write it.

    Needs the extra `onnx`. The file has the same inputs and outputs as the TorchScript file of its kind, standard
    operators alone, and the weights under their names in the model. It runs on the CPU for the comparison.

    Args:
        model: The model, from `build_model`.
        out: The file to write; by default ssd300.onnx or ssd300.detector.onnx.
        detector: Whether to include normalization, decoding and NMS, so that the file takes uint8 images
            [N, 3, 300, 300] and returns boxes [N, 200, 4], labels [N, 200], scores [N, 200] and counts [N].
        preprocess: How pictures are prepared for this network (see `export_module`). The file records it, and a
            detector normalizes by it.
        progress: Called with one line about each step.

    Returns:
        The path of the file.

    Raises:
        ArtifactError: If `out` cannot be written.
        ImageError: If `preprocess` is unknown.
        ParityError: If onnx's checker refuses the graph, or it differs from the model: the relative L2 distance of an
            output is above 1e-4, or the detections are others. Nothing is written.
        SsdtrtError: If onnx or onnxruntime is not installed.

    Example:
        >>> import torch
        >>> from ssdtrt import build_model, export_onnx, load_engine
        >>> path = export_onnx(build_model("random"), "ssd300.onnx")
        >>> loc, conf = load_engine(path, "cpu")(torch.zeros(2, 3, 300, 300))
        >>> path.name, loc.shape, conf.shape
        ('ssd300.onnx', torch.Size([2, 4, 8732]), torch.Size([2, 81, 8732]))
    """
    check_preprocess(preprocess)
    check_installed("onnx", "onnxruntime")
    out = check_output(out or (config.ONNX_DETECTOR_FILE if detector else config.ONNX_FILE))
    progress("exporting to ONNX")
    graph = onnx_model(model, preprocess if detector else None)
    check_graph(graph)
    metadata = _metadata(
        OnnxDetectorMetadata if detector else ModuleMetadata,
        model,
        "layers",
        preprocess,
        format="onnx",
    )
    with writing(out) as temporary:
        temporary.write_bytes(graph.SerializeToString())
        append_record(temporary, metadata.to_json())
        check_onnx_file(temporary, model, preprocess, progress)
    return out


def _to_torchscript(model: SSD300, method: str) -> torch.jit.ScriptModule:
    """Trace or script the model.

    Tracing records the current TF32 setting in every convolution, so TF32 is disabled.
    """
    if not isinstance(model, torch.nn.Module):
        raise SsdtrtError(f"The model is {model!r}; expected an SSD300, as build_model returns it.")
    with torchscript.quiet(), torch.no_grad(), tf32_disabled(autotune=False):
        if method == "script":
            return torch.jit.script(model)
        return torch.jit.trace(model, synthetic_images(config.BATCH_SIZE), check_trace=False)


def _metadata(
    kind: type[ModuleMetadata], model: SSD300, method: str, preprocess: str, format: str = "torchscript"
) -> ModuleMetadata:
    """Return the metadata of an exported file."""
    is_detector = issubclass(kind, OnnxDetectorMetadata)
    inputs, outputs = detector_tensors() if is_detector else module_tensors(model.num_classes)
    return kind(
        schema=config.SCHEMA,
        format=format,
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
        inputs=inputs,
        outputs=outputs,
        export=ExportInfo(method),
    )
