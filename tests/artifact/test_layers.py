"""Tests of the shares of types in the layers of an engine."""

from ssdtrt.artifact.layers import EngineLayer, arithmetic_by_dtype, count_by_dtype

LAYERS = (
    EngineLayer("a", "CaskConvolution", "fp16", 600),
    EngineLayer("b", "CaskConvolution", "fp32", 100),
    EngineLayer("c", "CaskConvolution", "fp16", 200),
    EngineLayer("d", "CaskConvolution", None, 100),
    EngineLayer("e", "Reformat", "fp32"),
    EngineLayer("f", "Reformat", "fp32"),
)


def test_the_arithmetic_of_each_type_is_a_share_of_all_that_is_known():
    assert list(arithmetic_by_dtype(LAYERS).items()) == [("fp16", 0.8), ("fp32", 0.1), ("unknown", 0.1)]
    assert arithmetic_by_dtype([LAYERS[4]]) == arithmetic_by_dtype([]) == {}


def test_every_layer_is_counted_once():
    assert list(count_by_dtype(LAYERS).items()) == [("fp32", 3), ("fp16", 2), ("unknown", 1)]
