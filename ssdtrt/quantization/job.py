"""Build an INT8 engine that is accurate, faster than FP16, and INT8."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from msgspec.structs import replace

from ssdtrt import config
from ssdtrt.artifact.metadata import Metadata
from ssdtrt.artifact.quantization import CalibrationTable, Int8Verdict, LayerCost
from ssdtrt.artifact.request import BuildRequest
from ssdtrt.engine.acceptance import load_built
from ssdtrt.engine.cached_build import BuiltEngine, EngineBuilder
from ssdtrt.errors import CalibrationError, CompileError
from ssdtrt.quantization.agreement import Network
from ssdtrt.quantization.calibration import calibrate
from ssdtrt.quantization.judge import Judge
from ssdtrt.quantization.options import Int8Options
from ssdtrt.quantization.pictures import (
    AnnotatedPictures,
    CalibrationPictures,
    check_disjoint,
    read_annotated,
    read_calibration,
)
from ssdtrt.quantization.sensitivity import choose_layers, measure_costs
from ssdtrt.rewriting.equalized import equalize
from ssdtrt.rewriting.fused import FusedNetwork, FusedSSD300
from ssdtrt.rewriting.quantized import quantize
from ssdtrt.runners.baseline import eager_model

_FEW = 4  # layers that stay in FP16 after an engine was not accurate enough, and then twice as many


def table_path(engine: Path) -> Path:
    """Return the path of the calibration table that is written beside an engine."""
    return engine.with_name(f"{engine.name}.calibration.json")


def build_int8(
    engine: Path,
    table: Path | None,
    table_name: str,
    base: Metadata,
    request: BuildRequest,
    builder: EngineBuilder,
    options: Int8Options,
) -> tuple[BuildRequest, BuiltEngine, Int8Verdict]:
    """Calibrate, choose the layers that stay in FP16, build, and judge the engine beside FP32 and FP16.

    With `keep_fp16="auto"` an engine that is not accurate enough is built again with more layers in FP16, three times in all.

    Args:
        engine: The file to write, without metadata.
        table: Where to write a new calibration table; None if one is given.
        table_name: The name that the request records for it.
        base: The metadata of the module.
        request: The request of the FP16 engine of the same kind and size.
        builder: Builds engines of the module.
        options: The options.

    Returns:
        The request of the engine, its build, and the verdict.

    Raises:
        CalibrationError: If the pictures or the table cannot be used.
        CompileError: If an engine cannot be built, or is not accurate, not faster than FP16, or not INT8.
    """
    ground = _Ground.gather(base, request, builder, options)
    keep = ground.chosen(options.keep_fp16, 0)
    with tempfile.TemporaryDirectory(prefix="ssdtrt-fp16-") as folder:
        fp16 = Path(folder, "fp16")
        builder.build(request, fp16)
        for last in (*[False] * (config.INT8_BUILDS - 1), True):
            quantization = ground.table.quantization(table_name, keep, options.pictures)
            wanted = replace(request, precision="int8", quantization=quantization)
            built = builder.build(wanted, engine)
            verdict = ground.judged(engine, wanted, fp16, request, built)
            if verdict.failure is None:
                break
            if last or options.keep_fp16 != "auto" or verdict.accuracy_failure is None:
                raise CompileError(f"{verdict.failure} Nothing was written.")
            builder.note(f"{verdict.accuracy_failure}: built again with more layers in FP16")
            keep = ground.chosen(options.keep_fp16, max(_FEW, 2 * len(keep)))
    if table is not None:
        ground.table.write(table)
    return wanted, built, verdict


@dataclass
class _Ground:
    """What an INT8 build stands on: the equalized network, its ranges and the judge."""

    fused: FusedSSD300
    table: CalibrationTable
    judge: Judge
    builder: EngineBuilder
    costs: list[LayerCost]

    @classmethod
    def gather(cls, base: Metadata, request: BuildRequest, builder: EngineBuilder, options: Int8Options) -> _Ground:
        """Read the pictures and the table, or measure one."""
        preprocess, progress, note = request.preprocess, builder.progress, builder.note
        table, pictures = None, None
        if options.calibration_table is not None:
            table = CalibrationTable.read(options.calibration_table, request.weights, preprocess)
        annotated = None
        if options.images is not None and options.annotations is not None:
            annotated = read_annotated(options.images, options.annotations, base.model.labels, preprocess, progress)
        if options.calibration is not None:
            pictures = read_calibration(
                options.calibration, preprocess, any_number=table is not None, progress=progress, note=note
            )
            if annotated is not None:
                check_disjoint(annotated, pictures.digests)
        if annotated is not None and table is not None:
            check_disjoint(annotated, table.pictures)
        model = eager_model(builder.module, builder.device)
        judge = Judge(
            model,
            _judged_on(pictures, table, annotated),
            preprocess,
            request.batch_range.opt if request.batch_range else 1,
            annotated,
            options.min_ap_ratio,
            base.trained,
            progress,
        )
        if table is None:
            assert pictures is not None
            measured = pictures.measured
            calibrator = options.calibrator or config.CALIBRATORS[0]
            ranges, exponents = calibrate(model, measured.images, calibrator, preprocess, progress)
            table = CalibrationTable(
                weights=request.weights,
                preprocess=preprocess,
                calibrator=calibrator,
                pictures=measured.digests,
                ranges=ranges,
                exponents=exponents,
            )
        return cls(equalize(FusedSSD300(model), table.exponents), table, judge, builder, [])

    def chosen(self, keep_fp16: str, at_least: int) -> Collection[str]:
        """Return the names of the convolutions that stay in FP16; raise CalibrationError for one that there is not."""
        if keep_fp16 != "auto":
            names = () if keep_fp16 == "none" else tuple(filter(None, (name.strip() for name in keep_fp16.split(","))))
            quantize(self.fused, self.table.ranges, names)  # Refuses wrong names before a build's minutes.
            return names
        judge, progress = self.judge, self.builder.progress
        if not self.costs:
            self.costs = measure_costs(self.fused, self.table.ranges, judge.pictures, judge.preprocess, progress)

        def agrees(network: FusedNetwork, count: int) -> bool:
            return judge.agrees(network, f"checking {count} layers in FP16")

        self.costs = choose_layers(self.fused, self.table.ranges, self.costs, agrees, at_least)
        return [one.name for one in self.costs if one.fp16]

    def judged(
        self, engine: Path, wanted: BuildRequest, fp16: Path, request: BuildRequest, built: BuiltEngine
    ) -> Int8Verdict:
        """Return the verdict on a built engine."""

        def load(path: Path, one: BuildRequest) -> Network:
            loaded = load_built(path, one, self.builder.device)
            network: Network = loaded.engine if one.detector else loaded
            return network

        return self.judge.verdict(
            load(engine, wanted),
            load(fp16, request),
            built.built.layers,
            calibrator=self.table.calibrator,
            calibration_pictures=len(self.table.pictures),
            costs=self.costs,
        )


def _judged_on(
    pictures: CalibrationPictures | None, table: CalibrationTable | None, annotated: AnnotatedPictures | None
) -> torch.Tensor:
    """Return the pictures whose detections are compared: calibration pictures that no range was measured on.

    Raises:
        CalibrationError: If every one was.
    """
    if pictures is None:
        assert annotated is not None
        return annotated.images
    if table is None:
        return pictures.held_out.images
    measured = set(table.pictures)
    others = [number for number, digest in enumerate(pictures.digests) if digest not in measured]
    if not others:
        raise CalibrationError(
            "The calibration table was measured on all of the pictures; give others to judge the engine on."
        )
    return pictures.images[others]
