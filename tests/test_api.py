"""The public names: all there, lazily imported, documented and typed; importing them changes nothing."""

import ast
import importlib
import inspect
import json
import pkgutil
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import ssdtrt

ROOT = Path(__file__).parent.parent
PUBLIC = [
    "BatchRange", "Detections", "Detector", "Evaluation", "FileRunner", "Int8Options", "ParityReport", "SSD300", "SsdtrtError", "bench_files", "benchmark",
    "build_model", "compile_engine", "detect_video", "diagnose", "evaluate_file", "export_module", "export_onnx", "load_engine",
    "profile_engine", "run_job", "verify_engine", "write_page",
]  # fmt: skip

STATE = """
import json, random, warnings
import numpy, torch
def state():
    return [
        torch.get_num_threads(), torch.get_num_interop_threads(), torch.get_default_dtype(), torch.is_grad_enabled(),
        torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic,
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(), torch.cuda.is_initialized(), torch.initial_seed(),
        torch.get_rng_state().sum().item(), random.getstate(), numpy.random.get_state()[1].sum().item(),
        warnings.filters[:], torch.jit.get_fusion_strategy() if hasattr(torch.jit, "get_fusion_strategy") else None,
    ]
def show(before, after):
    print(json.dumps([len(before), [i for i, pair in enumerate(zip(before, after)) if pair[0] != pair[1]]]))
"""


# What Ray runs in processes of its own, and imports Ray, which is large and is not there on the oldest stack.
OF_RAY = {f"ssdtrt.serving.service.{name}" for name in ("loaded", "replica", "status", "uploads")}


def modules():
    """Every module of the package but those of Ray and the one that runs the command line when it is imported."""
    names = {found.name for found in pkgutil.walk_packages(ssdtrt.__path__, "ssdtrt.")}
    assert {"ssdtrt.model.boxes", "ssdtrt.cli", *OF_RAY} <= names
    names = sorted(name for name in names - OF_RAY if not name.endswith("__main__"))
    return [importlib.import_module(name) for name in ["ssdtrt", *names]]


def own_members(module, kind):
    """The public members that a module defines itself."""
    return [
        (f"{module.__name__}.{name}", member)
        for name, member in vars(module).items()
        if not name.startswith("_") and kind(member) and member.__module__ == module.__name__
    ]


def public_functions():
    """Every public function, class and method of the package, by its full name."""
    found = {}
    for module in modules():
        found.update(own_members(module, inspect.isfunction))
        for path, cls in own_members(module, inspect.isclass):
            found[path] = cls
            methods = {name: member for name, member in vars(cls).items() if not name.startswith("_")}
            found.update(
                {
                    f"{path}.{name}": getattr(cls, name)
                    for name, member in methods.items()
                    if inspect.isfunction(member) or isinstance(member, (property, classmethod, staticmethod))
                }
            )
    return found


def documentation(member):
    """The docstring; a method may have that of the method it overrides, a class not that of its base."""
    return member.__doc__ if inspect.isclass(member) else inspect.getdoc(member)


def test_public_names():
    assert sorted(ssdtrt.__all__) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_name_imports(name):
    member = getattr(ssdtrt, name)
    assert callable(member) and member.__name__ == name
    assert member.__module__.startswith("ssdtrt.")


def test_star_import():
    space = {}
    exec("from ssdtrt import *", space)
    assert set(PUBLIC) <= space.keys()


def test_dir_lists_the_public_names():
    assert dir(ssdtrt) == sorted([*PUBLIC, "__version__"])


def test_help_shows_the_public_names_first():
    """Before the list of folders: the docstring names every function and class that a newcomer begins with."""
    text = pydoc.render_doc(ssdtrt, renderer=pydoc.plaintext)
    first = text[: text.index("PACKAGE CONTENTS")]
    assert [name for name in PUBLIC if name[0].islower() and f"{name} " not in first] == []
    assert "compile_engine(" in text and "class Detector" in text


def test_the_names_that_editors_see_are_the_lazy_ones():
    tree = ast.parse(Path(ssdtrt.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {name.name: f"{node.module}" for node in block.body for name in node.names}
    assert seen == ssdtrt._HOMES and sorted(seen) == sorted(ssdtrt.__all__)


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'ssdtrt' has no attribute 'nonsense'"):
        ssdtrt.nonsense  # noqa: B018
    with pytest.raises(ImportError):
        from ssdtrt import nonsense  # noqa: F401


def test_version_is_a_release_number():
    parts = ssdtrt.__version__.split(".")
    assert len(parts) == 3 and all(part.isdecimal() for part in parts)


def test_everything_public_is_documented():
    found = public_functions()
    assert len(found) > 100
    bare = [path for path, member in found.items() if not (documentation(member) or "").strip()]
    assert bare == []


def test_every_module_is_documented():
    assert [module.__name__ for module in modules() if not (module.__doc__ or "").strip()] == []


@pytest.mark.parametrize("name", [*PUBLIC, "Detector.__init__", "Detector.__call__"])
def test_public_functions_are_typed(name):
    member = ssdtrt
    for part in name.split("."):
        member = getattr(member, part)
    if inspect.isclass(member):
        return
    signature = inspect.signature(member)
    untyped = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.name != "self" and parameter.annotation is inspect.Parameter.empty
    ]
    assert untyped == []
    assert name.endswith("__init__") or signature.return_annotation is not inspect.Signature.empty


def test_import_changes_no_global_state():
    names = [
        f"ssdtrt.{name}" for name in ("bench", "cli", "compile", "detect", "engine.worker", "evaluate", "run", "verify")
    ]
    code = f"{STATE}before = state()\nimport {', '.join(names)}\nfrom ssdtrt import *\nshow(before, state())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    count, changed = json.loads(done.stdout)
    assert count == 18 and changed == []
    assert done.stderr == ""


def test_errors_share_one_base():
    errors = importlib.import_module("ssdtrt.errors")
    classes = [cls for _, cls in own_members(errors, inspect.isclass)]
    assert {cls.__name__ for cls in classes} >= {"ArtifactError", "CompileError", "ImageError", "ParityError"}
    assert all(issubclass(cls, ssdtrt.SsdtrtError) for cls in classes)
    assert issubclass(errors.FetchError, errors.WeightsError)


def refused(message, call, *arguments, **options):
    with pytest.raises(ssdtrt.SsdtrtError, match=message):
        call(*arguments, **options)


def test_one_path_and_one_name_are_not_taken_for_their_letters(tmp_path, engine):
    (tmp_path / "list.json").write_text("[1]")
    refused("none.ts: no such file", ssdtrt.bench_files, "none.ts")
    refused("none.ts: no such file", ssdtrt.bench_files, Path("none.ts"), against="compile")
    refused("none.jpg: no such file", ssdtrt.verify_engine, engine, "none.jpg")
    refused("list.json is no report", ssdtrt.write_page, str(tmp_path / "list.json"), tmp_path / "page.html")
    refused("^'fast' is no benchmark case", ssdtrt.bench_files, "none.ts", against="fast")
    refused("^No file was given; expected at least one module", ssdtrt.bench_files, [])


@pytest.mark.parametrize("device", ["gpu", "cuda:x"])
def test_a_device_that_torch_does_not_know(device, engine, module, tmp_path):
    message = f"^'{device}' is not a device; expected cpu, cuda or cuda:N."
    refused(message, ssdtrt.Detector, engine, device)
    refused(message, ssdtrt.load_engine, module, device)
    refused(message, ssdtrt.compile_engine, module, tmp_path / "e.ts", backend="torchscript", device=device)


def test_weights_in_the_place_of_a_model_are_refused(tmp_path):
    refused(
        "^The model is 'random'; expected an SSD300, as build_model", ssdtrt.export_module, "random", tmp_path / "a"
    )
    assert list(tmp_path.iterdir()) == []
