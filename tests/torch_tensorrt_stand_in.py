"""A torch_tensorrt that takes what a recorded version of it takes, and builds nothing."""

import importlib.machinery
import inspect
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

SIGNATURES = json.loads((Path(__file__).parent / "data" / "torch_tensorrt_signatures.json").read_text())


def stand_in(version, answer=lambda module, **arguments: module):
    """A torch_tensorrt with the recorded signatures of one version; `compile` records its call, then gives `answer`."""
    known = SIGNATURES[version]
    package = ModuleType("torch_tensorrt")
    package.__spec__ = importlib.machinery.ModuleSpec("torch_tensorrt", None)
    package.__version__ = version
    package.calls = []
    keyword = inspect.Parameter.KEYWORD_ONLY

    def ts_compile(module, **arguments):
        raise AssertionError("not called directly")

    ts_compile.__signature__ = inspect.Signature(
        [inspect.Parameter(name, keyword) for name in known["ts.compile"]["parameters"]]
    )

    def compile_(module, **arguments):
        package.calls.append((module, arguments))
        return answer(module, **arguments)

    def make_input(**keywords):
        assert set(keywords) <= set(known["Input"]["keywords"])
        return ("Input", keywords)

    package.ts = SimpleNamespace(compile=ts_compile)
    package.compile, package.Input, package.Device = compile_, make_input, lambda name: ("Device", name)
    if known["has_feature_flag"]:
        package.ENABLED_FEATURES = SimpleNamespace(torchscript_frontend=True)
    return package
