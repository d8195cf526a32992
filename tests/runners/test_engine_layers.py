"""Tests of what is read from TensorRT's inspector and profiler; test_gpu.py has those with a real engine."""

import json
from types import SimpleNamespace

import pytest
import torch

from ssdtrt.artifact.layers import EngineLayer
from ssdtrt.runners.engine_layers import layers_of, parse_layers, time_layers

CONVOLUTION = {
    "Name": "backbone.conv1 + backbone.relu",
    "LayerType": "CaskConvolution",
    "Inputs": [{"Name": "x", "Dimensions": [8, 64, 75, 75], "Format/Datatype": "Row major linear FP16 format"}],
    "Outputs": [{"Name": "y", "Dimensions": [8, 128, 38, 38], "Format/Datatype": "Row major linear FP32 format"}],
    "Weights": {"Type": "Half", "Count": 73728},
    "TacticName": "sm80_xmma_fprop",
}


def test_a_convolution_has_the_type_of_its_weights_and_uses_each_once_a_pixel():
    (layer,) = parse_layers(json.dumps({"Layers": [CONVOLUTION], "Bindings": ["images"]}))
    assert layer == EngineLayer(
        "backbone.conv1 + backbone.relu", "CaskConvolution", "fp16", 73728 * 38 * 38, "sm80_xmma_fprop"
    )


@pytest.mark.parametrize(
    "text, dtype",
    [
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Row major linear FP32", "fp32"),
        ("Half", "fp16"),
        ("Float", "fp32"),
        ("BFloat16", "bf16"),
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Int32", "int32"),
        ("N/A due to dynamic shapes", None),
        (None, None),
    ],
)
def test_the_type_is_found_in_the_text_of_the_output(text, dtype):
    layer = {"Name": "copy", "LayerType": "Reformat", "Outputs": [{"Format/Datatype": text}]}
    assert parse_layers(json.dumps({"Layers": [layer]})) == (EngineLayer("copy", "Reformat", dtype),)


@pytest.mark.parametrize("size", [[8, 128], [8, 128, -1, -1], [], None])
def test_without_the_size_of_the_output_the_arithmetic_is_not_known(size):
    layer = {**CONVOLUTION, "Outputs": [{**CONVOLUTION["Outputs"][0], "Dimensions": size}]}
    (found,) = parse_layers(json.dumps({"Layers": [layer]}))
    assert found.multiplications is None and found.dtype == "fp16"


def test_an_engine_without_details_has_names_only():
    assert parse_layers(json.dumps({"Layers": ["conv1", {}]})) == (
        EngineLayer("conv1", "unknown"),
        EngineLayer("", "unknown"),
    )
    assert parse_layers("{}") == ()


def test_the_layers_of_an_engine_are_asked_for_as_json():
    inspector = SimpleNamespace(get_engine_information=lambda kind: json.dumps({"Layers": [kind]}))
    engine = SimpleNamespace(
        tensorrt=SimpleNamespace(LayerInformationFormat=SimpleNamespace(JSON="as JSON")),
        engine=SimpleNamespace(create_engine_inspector=lambda: inspector),
    )
    assert layers_of(engine) == (EngineLayer("as JSON", "unknown"),)


def test_the_time_of_a_layer_is_the_median_of_the_timed_calls():
    class Network:
        engine = SimpleNamespace(tensorrt=SimpleNamespace(IProfiler=object), device=torch.device("cpu"))
        calls, reported, profiler = 0, 2, None

        def attach(self, profiler):
            assert self.calls == 2  # After the warm-up.
            self.profiler = profiler

        def __call__(self, images):
            assert self.reported == self.calls or self.profiler is None
            self.calls += 1

        def report_layer_times(self):
            self.reported += 1
            self.profiler.report_layer_time("a", float(self.calls))
            self.profiler.report_layer_time("b", 0.5)

    assert time_layers(Network(), torch.zeros(1), calls=3, warmup=2) == {"a": 4.0, "b": 0.5}  # Calls 3, 4 and 5.
