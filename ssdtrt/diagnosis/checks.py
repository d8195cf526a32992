"""The checks of `doctor`, from facts to findings. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ssdtrt import config
from ssdtrt.artifact.precision import PRECISIONS
from ssdtrt.diagnosis.facts import PACKAGES, ROADS, TENSORRT_NAMES, BuildTest, Facts, Failure, Package
from ssdtrt.diagnosis.report import TEST_BUILD, Finding
from ssdtrt.diagnosis.requirements import install_command, is_known, parse_version, public, unmet
from ssdtrt.images.nvimgcodec_library import VERSION
from ssdtrt.system.versions import pip_install, pip_install_tensorrt

_GET_GPU = (
    "Use a machine with an NVIDIA GPU and its driver, where nvidia-smi lists it; "
    "in a container, start that with --gpus all."
)
_REPORT = "Please report this with the output of: ssdtrt doctor --json -"


def check_facts(facts: Facts) -> list[Finding]:
    """Return the findings of all checks; a check that raises becomes a finding itself."""
    findings: list[Finding] = []
    for name, check in _CHECKS.items():
        try:
            findings += check(facts)
        except Exception as error:  # Unexpected facts must not hide the other findings.
            found = f"could not be checked ({type(error).__name__}: {error})"
            findings.append(Finding(name, "warning", found, _REPORT))
    return findings


def check_build(answer: BuildTest | Failure) -> Finding:
    """Return the finding about the test build."""
    if isinstance(answer, Failure):
        fix = "Install versions that belong together: " + pip_install_tensorrt()
        return Finding(TEST_BUILD, "problem", answer.error, fix)
    distance, bound = answer.relative_l2, PRECISIONS["fp16"].bound
    if distance is None or not distance <= bound:
        found = "not finite" if distance is None else f"{distance:.1e}, more than {bound:.0e}"
        fix = "Do not trust engines built here. Install versions that belong together: " + pip_install_tensorrt()
        return Finding(TEST_BUILD, "problem", f"relative L2 to FP32 eager is {found}", fix)
    found = f"FP16 engine built in {answer.seconds:.1f} s, relative L2 to FP32 eager {distance:.1e}"
    return Finding(TEST_BUILD, "ok", found)


def _check_system(facts: Facts) -> Iterator[Finding]:
    """Check the operating system and Python."""
    system = facts.system
    if isinstance(system, Failure):
        yield Finding("system", "warning", system.error)
        return
    found = f"{system.os} {system.architecture}, Python {system.python}"
    if is_known(system.python, config.PYTHON_VERSIONS):
        yield Finding("system", "ok", found)
    else:
        fix = f"Use Python {_in_words(config.PYTHON_VERSIONS)}, which ssdtrt supports."
        yield Finding("system", "warning", found, fix)


def _check_driver(facts: Facts) -> Iterator[Finding]:
    """Check the NVIDIA driver against the CUDA version that torch is built for."""
    driver, torch = facts.driver, facts.torch
    sees_gpu = not isinstance(torch, Failure) and bool(torch.gpus)
    if isinstance(driver, Failure):
        yield Finding(
            "driver", "warning", driver.error, "Not needed while torch sees the GPU." if sees_gpu else _GET_GPU
        )
        return
    if not isinstance(torch, Failure) and torch.cuda and not sees_gpu:
        needed = config.DRIVER_OF_CUDA.get(parse_version(torch.cuda).major, 0)
        if parse_version(driver.version).major < needed:
            found = f"NVIDIA {driver.version}, too old for CUDA {torch.cuda}, which torch {torch.version} is built for"
            fix = f"Install an NVIDIA driver of {needed} or later, or an older torch."
            yield Finding("driver", "problem", found, fix)
            return
    yield Finding("driver", "ok", f"NVIDIA {driver.version}, from {driver.source}")


def _check_gpus(facts: Facts) -> Iterator[Finding]:
    """List the GPUs, and check that torch sees those that the driver lists."""
    torch = facts.torch
    listed = () if isinstance(facts.driver, Failure) else facts.driver.gpus
    seen = () if isinstance(torch, Failure) else torch.gpus
    for index, gpu in enumerate(listed or seen):
        free = gpu.free_mib is not None and f"{_size(gpu.free_mib)} free"
        parts = [gpu.name, gpu.sm and f"SM {gpu.sm}", gpu.memory_mib is not None and _size(gpu.memory_mib), free]
        yield Finding(f"GPU {index}", "ok", ", ".join(part for part in parts if part))
    if seen:
        return
    reason = "" if isinstance(torch, Failure) or torch.no_gpu is None else f" ({torch.no_gpu})"
    if not listed:
        yield Finding("GPU", "problem", f"none is seen{reason}", _GET_GPU)
    elif isinstance(torch, Failure):
        return  # Reported by the check of torch.
    elif facts.visible is not None:
        found = f"torch sees none of them: CUDA_VISIBLE_DEVICES is {facts.visible!r}"
        yield Finding("GPU", "problem", found, "unset CUDA_VISIBLE_DEVICES")
    else:
        fix = "Restart the machine, or update the driver."
        if not torch.cuda:
            fix = f"Install torch's CUDA build: {install_command(facts)}"
        yield Finding("GPU", "problem", f"torch sees none of them{reason}", fix)


def _check_torch(facts: Facts) -> Iterator[Finding]:
    """Check that torch can be imported, and whether it loads checkpoints safely."""
    torch = facts.torch
    if isinstance(torch, Failure):
        yield _import_failure("torch", torch, "torch", install_command(facts))
        return
    found = f"{torch.version}, built for " + (f"CUDA {torch.cuda}" if torch.cuda else "the CPU alone")
    if parse_version(torch.version).release[:2] < config.SAFE_WEIGHTS_ONLY:
        found += "; a crafted checkpoint can run code while it loads (CVE-2025-32434)"
        yield Finding("torch", "warning", found, "Load only checkpoints that you trust (--trust-weights).")
    else:
        yield Finding("torch", "ok", found)


def _check_torchvision(facts: Facts) -> Iterator[Finding]:
    """Check torchvision, whose operators must be built for the installed torch."""
    torch, vision = facts.torch, facts.torchvision
    if isinstance(torch, Failure):
        return  # It cannot be imported without torch.
    fix = f"pip install torch=={public(torch.version)} torchvision"
    if isinstance(vision, Failure):
        failure = _import_failure("torchvision", vision, "torchvision", fix)
        if "torchvision::nms" in vision.error:
            fix = "Install torch and torchvision from the same index: " + install_command(facts)
            failure = Finding("torchvision", "problem", failure.found + "; it is built for another torch", fix)
        yield failure
    elif wrong := unmet(facts, "torchvision", "torch"):
        yield Finding("torchvision", "warning", f"{vision.version} does not fit: {wrong}", fix)
    else:
        yield Finding("torchvision", "ok", vision.version)


def _check_torch_tensorrt(facts: Facts) -> Iterator[Finding]:
    """Check that Torch-TensorRT is installed, fits torch, and can be imported."""
    name, found, command = "Torch-TensorRT", facts.torch_tensorrt, install_command(facts)
    version = _version(facts.packages["torch-tensorrt"]) or "installed"
    lacking = isinstance(found, Failure) and found.missing == "torch_tensorrt"
    if isinstance(facts.torch, Failure) and not lacking:
        yield Finding(name, "warning", f"{version}; not tried without torch", "Fix torch first.")
        return
    wrong = unmet(facts, "torch-tensorrt", "torch")
    if isinstance(found, Failure):
        if wrong:
            yield Finding(name, "problem", f"{version} does not fit: {wrong} ({found.error})", command)
        elif lacking or isinstance(facts.torch, Failure) or facts.torch.gpus:
            yield _import_failure(name, found, "torch_tensorrt", command)
        else:
            text = f"{version}, but importing it fails ({found.error})"
            yield Finding(name, "problem", text, "It needs a GPU to be imported: fix that first.")
    elif wrong:
        yield Finding(name, "warning", f"{found.version} does not fit: {wrong}", command)
    elif not is_known(found.version, config.TORCH_TENSORRT_VERSIONS):
        supported = _in_words(config.TORCH_TENSORRT_VERSIONS)
        text = f"{found.version}, which ssdtrt was not tested with; it supports {supported}"
        yield Finding(name, "warning", text, "Try it: ssdtrt doctor --build")
    else:
        yield Finding(name, "ok", found.version)


def _check_rtx(facts: Facts) -> Iterator[Finding]:
    """Report TensorRT-RTX's Torch-TensorRT, which has the import name of the proper one."""
    version = _version(facts.packages[config.RTX_DISTRIBUTION])
    if version is None:
        return
    proper = _version(facts.packages["torch-tensorrt"])
    beside = f", beside torch-tensorrt {proper}, which has the same import name" if proper else ""
    found = f"{config.RTX_DISTRIBUTION} {version}{beside}; ssdtrt does not run engines of TensorRT-RTX"
    uninstall = f"pip uninstall -y torch-tensorrt {config.RTX_DISTRIBUTION}"
    yield Finding("TensorRT-RTX", "problem", found, f"{uninstall} && {install_command(facts)}")


def _check_front_ends(facts: Facts) -> Iterator[Finding]:
    """Check Torch-TensorRT's front ends, of which the TorchScript one writes engine files."""
    found = facts.torch_tensorrt
    if isinstance(found, Failure):
        return
    names = [title for title, there in (("TorchScript", found.torchscript), ("Dynamo", found.dynamo)) if there]
    text = ", ".join(names) or "none"
    if found.torchscript:
        yield Finding("front ends", "ok", text)
    else:
        fix = f"Install a build with the TorchScript front end, which writes engine files: {pip_install_tensorrt()}"
        yield Finding("front ends", "problem", text, fix)


def _check_tensorrt(facts: Facts) -> Iterator[Finding]:
    """Check TensorRT against the requirements of Torch-TensorRT."""
    front_end, package = facts.torch_tensorrt, _version(facts.packages["torch-tensorrt"])
    loaded = None if isinstance(front_end, Failure) else front_end.tensorrt
    version = loaded or next(filter(None, (_version(facts.packages[name]) for name in TENSORRT_NAMES)), None)
    imported = not isinstance(front_end, Failure)
    if package is None and version is None and not imported:
        return  # It is installed with Torch-TensorRT, which is missing.
    wrong = unmet(facts, "torch-tensorrt", *TENSORRT_NAMES)
    if wrong and package:
        fix = f"pip install --force-reinstall --no-cache-dir torch-tensorrt=={public(package)}"
        found = f"{version} does not fit: {wrong}" if version else wrong
        yield Finding("TensorRT", "warning" if imported else "problem", found, fix)
    elif version is None:
        yield Finding("TensorRT", "ok" if imported else "warning", "its version is not known")
    elif parse_version(version).major >= 11:
        yield Finding("TensorRT", "ok", f"{version}; it takes the precision from the module, which ssdtrt casts")
    else:
        yield Finding("TensorRT", "ok", version)


def _check_packages(facts: Facts) -> Iterator[Finding]:
    """Report packages whose metadata cannot be read."""
    for name in PACKAGES:
        package = facts.packages[name]
        if isinstance(package, Failure):
            fix = f"pip install --force-reinstall {name}"
            yield Finding(f"{name} metadata", "warning", f"cannot be read ({package.error})", fix)


def _check_folders(facts: Facts) -> Iterator[Finding]:
    """Check the folders that ssdtrt writes to."""
    fixes = {
        "weights folder": "Set TORCH_HOME to a folder that can be written, or give a checkpoint's path to --weights.",
        "temporary folder": "Set TMPDIR to a folder that can be written.",
        "current folder": "Change to a folder that can be written, or name another one with -o.",
    }
    for name, fix in fixes.items():
        folder = facts.folders[name]
        if isinstance(folder, Failure):
            yield Finding(name, "problem" if name == "temporary folder" else "warning", folder.error, fix)
        elif folder.free_mib < config.MIN_FREE_MIB:
            found = f"{folder.path}, only {_size(folder.free_mib)} free"
            yield Finding(name, "warning", found, f"Free {config.MIN_FREE_MIB} MiB there. Or: {fix}")
        else:
            yield Finding(name, "ok", f"{folder.path}, {_size(folder.free_mib)} free")


def _check_roads(facts: Facts) -> Iterator[Finding]:
    """Report what pictures can be read with, and what a package that is missing would give."""
    decoder, video = (_version(facts.packages[name]) for name in ROADS.values())
    if isinstance(facts.torch, Failure) or not facts.torch.gpus:
        text = "on the CPU, by Pillow; on a GPU where there is one, with nvImageCodec"
    elif decoder is None or not decoder.startswith(f"{VERSION}."):
        text = (
            f"on the CPU, by Pillow; on the GPU, which leaves the CPU's cores free, with: {pip_install('gpu-decode')}"
        )
    else:
        text = f"on the GPU, by nvImageCodec {decoder}, where many files are read, and in the service"
    yield Finding("JPEG decoding", "ok", text)
    text = f"PyAV {video}" if video else f"not read; they are with: {pip_install('video')}"
    yield Finding("videos", "ok", text)


def _check_cpu(facts: Facts) -> Iterator[Finding]:
    """Report that CPU engines can be built."""
    if not isinstance(facts.torch, Failure) and not isinstance(facts.torchvision, Failure):
        yield Finding("CPU engine", "ok", "works here: ssdtrt export && ssdtrt compile --backend torchscript")


_CHECKS: dict[str, Callable[[Facts], Iterator[Finding]]] = {
    "system": _check_system,
    "driver": _check_driver,
    "GPU": _check_gpus,
    "torch": _check_torch,
    "torchvision": _check_torchvision,
    "Torch-TensorRT": _check_torch_tensorrt,
    "TensorRT-RTX": _check_rtx,
    "front ends": _check_front_ends,
    "TensorRT": _check_tensorrt,
    "metadata": _check_packages,
    "folders": _check_folders,
    "pictures": _check_roads,
    "CPU engine": _check_cpu,
}


def _import_failure(title: str, failure: Failure, module: str, fix: str) -> Finding:
    """Return the finding for a package that is missing or cannot be imported."""
    missing = failure.missing == module
    return Finding(title, "problem", "not installed" if missing else f"cannot be imported ({failure.error})", fix)


def _version(package: Package | Failure) -> str | None:
    return None if isinstance(package, Failure) else package.version


def _in_words(versions: tuple[tuple[int, int], tuple[int, int]]) -> str:
    """Return the oldest and the newest version, such as `3.10 to 3.13`."""
    return " to ".join(".".join(map(str, version)) for version in versions)


def _size(mib: int) -> str:
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib} MiB"
