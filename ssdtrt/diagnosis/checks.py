"""What can be built on this machine, and what to do where it cannot: facts in, findings out, without torch."""

from __future__ import annotations

from collections.abc import Iterator

from ssdtrt import config
from ssdtrt.artifact.capabilities import PRECISIONS
from ssdtrt.diagnosis.facts import PACKAGES, TENSORRT_NAMES, gather, guarded, read_probe, start_probe
from ssdtrt.diagnosis.report import TRIAL, DoctorReport, Finding
from ssdtrt.diagnosis.requirements import install, public, release, unmet
from ssdtrt.system.progress import Progress, silent

GET_GPU = (
    "Use a machine with an NVIDIA GPU and its driver, where nvidia-smi lists it; "
    "in a container, start that with --gpus all."
)
REPORT = "Please report this with the output of: ssdtrt doctor --json -"
TITLES = {"torch": "torch", "torchvision": "torchvision", "torch_tensorrt": "Torch-TensorRT"}


def doctor(build: bool = False, progress: Progress = silent) -> DoctorReport:
    """What this machine has for building a TensorRT engine, what it lacks, and the fix for each problem.

    Imports torch and Torch-TensorRT in processes of their own, so that nothing that is broken there can end this one.
    With `build` a tiny FP16 engine is built, run and compared with FP32 eager, unless a problem already forbids it.
    """
    facts = gather(progress)
    findings = judge(facts)
    if build:
        keeping = [finding.check for finding in findings if finding.status == "problem"]
        findings.append(judge_trial(None if keeping else run_trial(progress), keeping))
    return DoctorReport(tuple(findings))


def run_trial(progress: Progress) -> dict:
    """The answer of the process that builds a tiny engine."""
    child = guarded(start_probe, "trial")
    if isinstance(child, dict):
        return child
    return guarded(read_probe, child, "building a tiny engine", config.TRIAL_SECONDS, progress)


def judge(facts: dict) -> list[Finding]:
    """The findings for what `gather` gathered; a check that fails becomes a finding itself."""
    findings = []
    for name, check in CHECKS.items():
        try:
            findings += check(facts)
        except Exception as error:  # Facts of a shape that nobody thought of must not hide the other findings.
            said = f"could not be judged ({type(error).__name__}: {error})"
            findings.append(Finding(name, "warning", said, REPORT))
    return findings


def check_system(facts: dict) -> Iterator[Finding]:
    """The operating system and Python."""
    system = facts["system"]
    if system.get("error"):
        yield Finding("system", "warning", system["error"])
        return
    oldest, newest = (".".join(map(str, version)) for version in config.PYTHONS)
    found = f"{system['os']} {system['architecture']}, Python {system['python']}"
    if config.PYTHONS[0] <= release(system["python"])[:2] <= config.PYTHONS[1]:
        yield Finding("system", "ok", found)
    else:
        yield Finding("system", "warning", found, f"Use Python {oldest} to {newest}, which ssdtrt is made for.")


def check_driver(facts: dict) -> Iterator[Finding]:
    """The NVIDIA driver, as nvidia-smi tells it, against the CUDA that torch was built for."""
    driver, torch = facts["driver"], facts["torch"]
    if driver.get("error"):
        fix = "Not needed while torch sees the GPU." if torch.get("gpus") else GET_GPU
        yield Finding("driver", "warning", driver["error"], fix)
        return
    cuda = torch.get("cuda")
    needed = config.DRIVER_OF_CUDA.get(release(cuda)[0]) if cuda else None
    if needed and release(driver["version"])[0] < needed and not torch.get("gpus"):
        found = f"NVIDIA {driver['version']}, too old for CUDA {cuda}, which torch {torch['version']} is built for"
        yield Finding("driver", "problem", found, f"Install an NVIDIA driver of {needed} or later, or an older torch.")
    else:
        yield Finding("driver", "ok", f"NVIDIA {driver['version']}")


def check_gpus(facts: dict) -> Iterator[Finding]:
    """Each GPU; and whether torch sees those that the driver has."""
    torch, listed = facts["torch"], facts["driver"].get("gpus") or []
    seen = torch.get("gpus") or []
    for index, gpu in enumerate(listed or seen):
        sizes = [size(gpu.get("memory_mib")), gpu.get("free_mib") is not None and f"{size(gpu['free_mib'])} free"]
        parts = [gpu["name"], gpu.get("sm") and f"SM {gpu['sm']}", *sizes]
        yield Finding(f"GPU {index}", "ok", ", ".join(filter(None, parts)))
    if seen:
        return
    if not listed:
        yield Finding("GPU", "problem", "none is seen" + because(torch.get("no_gpu")), GET_GPU)
    elif facts["visible"] is not None and not torch.get("error"):
        found = f"torch sees none of them: CUDA_VISIBLE_DEVICES is {facts['visible']!r}"
        yield Finding("GPU", "problem", found, "unset CUDA_VISIBLE_DEVICES")
    elif not torch.get("error"):
        cpu_only = not torch.get("cuda")
        fix = "Restart the machine, or update the driver."
        if cpu_only:
            fix = f"Install torch's CUDA build: {install(facts)}"
        yield Finding("GPU", "problem", "torch sees none of them" + because(torch.get("no_gpu")), fix)


def check_torch(facts: dict) -> Iterator[Finding]:
    """torch itself, and what is known of its version."""
    torch = facts["torch"]
    if torch.get("error"):
        yield import_failure(facts, "torch", install(facts))
        return
    found = f"{torch['version']}, built for " + (f"CUDA {torch['cuda']}" if torch["cuda"] else "the CPU alone")
    if release(torch["version"])[:2] < config.SAFE_WEIGHTS_ONLY:
        found += "; a crafted checkpoint can run code while it loads (CVE-2025-32434)"
        yield Finding("torch", "warning", found, "Load only checkpoints that you trust (--trust-weights).")
    else:
        yield Finding("torch", "ok", found)


def check_torchvision(facts: dict) -> Iterator[Finding]:
    """torchvision, whose operators must be built for this very torch."""
    if facts["torch"].get("error"):
        return  # It cannot be imported without torch, which says nothing about it.
    vision = facts["torchvision"]
    wrong = unmet(facts, "torchvision")
    fix = f"pip install torch=={public(facts['torch']['version'])} torchvision"
    if vision.get("error"):
        failure = import_failure(facts, "torchvision", fix)
        if "torchvision::nms" in vision["error"]:
            fix = "Install torch and torchvision from the same index: " + install(facts)
            failure = Finding("torchvision", "problem", failure.found + "; it is built for another torch", fix)
        yield failure
    elif wrong:
        yield Finding("torchvision", "warning", f"{vision['version']} does not fit: {wrong}", fix)
    else:
        yield Finding("torchvision", "ok", vision["version"])


def check_torch_tensorrt(facts: dict) -> Iterator[Finding]:
    """Torch-TensorRT: there, of torch's version, and importable."""
    found = facts["torch_tensorrt"]
    package = facts["packages"]["torch-tensorrt"]
    if facts["torch"].get("error") and not lacks(facts, "torch_tensorrt"):
        said = f"{package.get('version') or 'installed'}; not tried without torch"
        yield Finding("Torch-TensorRT", "warning", said, "Mend torch first.")
        return
    wrong = unmet(facts, "torch-tensorrt", "torch")
    if found.get("error"):
        if wrong:
            said = f"{package['version']} does not fit: {wrong} ({found['error']})"
            yield Finding("Torch-TensorRT", "problem", said, install(facts))
        elif not facts["torch"].get("gpus") and not lacks(facts, "torch_tensorrt"):
            said = f"{package.get('version') or 'installed'}, but importing it fails ({found['error']})"
            yield Finding("Torch-TensorRT", "problem", said, "It needs a GPU to be imported: mend that first.")
        else:
            yield import_failure(facts, "torch_tensorrt", install(facts))
    elif wrong:
        yield Finding("Torch-TensorRT", "warning", f"{found['version']} does not fit: {wrong}", install(facts))
    elif not config.TORCH_TENSORRT_KNOWN[0] <= release(found["version"])[:2] <= config.TORCH_TENSORRT_KNOWN[1]:
        known = " to ".join(".".join(map(str, version)) for version in config.TORCH_TENSORRT_KNOWN)
        said = f"{found['version']}, which ssdtrt does not know; it knows {known}"
        yield Finding("Torch-TensorRT", "warning", said, "Try it: ssdtrt doctor --build")
    else:
        yield Finding("Torch-TensorRT", "ok", found["version"])


def check_front_ends(facts: dict) -> Iterator[Finding]:
    """Torch-TensorRT's front ends, of which the TorchScript one writes engine files."""
    found = facts["torch_tensorrt"]
    if found.get("error"):
        return
    names = [title for key, title in (("torchscript", "TorchScript"), ("dynamo", "Dynamo")) if found[key]]
    said = ", ".join(names) or "none"
    if found["torchscript"]:
        yield Finding("front ends", "ok", said)
    else:
        fix = f"Install a build with the TorchScript front end, which writes engine files: {config.HOW_TO_INSTALL}"
        yield Finding("front ends", "problem", said, fix)


def check_tensorrt(facts: dict) -> Iterator[Finding]:
    """TensorRT against what Torch-TensorRT asks for."""
    packages, loaded = facts["packages"], facts["torch_tensorrt"].get("tensorrt")
    installed = [packages[name]["version"] for name in TENSORRT_NAMES if packages[name].get("version")]
    version = loaded or (installed[0] if installed else None)
    imported = not facts["torch_tensorrt"].get("error")
    if packages["torch-tensorrt"].get("version") is None and version is None and not imported:
        return  # It comes with Torch-TensorRT, and that is missing.
    wrong = unmet(facts, "torch-tensorrt", *TENSORRT_NAMES)
    if wrong:
        asks = public(packages["torch-tensorrt"]["version"])
        fix = f"pip install --force-reinstall --no-cache-dir torch-tensorrt=={asks}"
        said = f"{version} does not fit: {wrong}" if version else wrong
        yield Finding("TensorRT", "warning" if imported else "problem", said, fix)
    elif version is None:
        yield Finding("TensorRT", "ok" if imported else "warning", "its version is not known")
    elif release(version)[0] >= 11:
        yield Finding("TensorRT", "ok", f"{version}; FP16 comes from the module's own type, which ssdtrt sees to")
    else:
        yield Finding("TensorRT", "ok", version)


def check_packages(facts: dict) -> Iterator[Finding]:
    """Packages whose metadata cannot be read."""
    for name in PACKAGES:
        error = facts["packages"][name].get("error")
        if error:
            fix = f"pip install --force-reinstall {name}"
            yield Finding(f"{name} metadata", "warning", f"cannot be read ({error})", fix)


def check_folders(facts: dict) -> Iterator[Finding]:
    """Where files are written: for the weights, while building, and here."""
    fixes = {
        "weights folder": "Set TORCH_HOME to a folder that can be written, or give a checkpoint's path to --weights.",
        "temporary folder": "Set TMPDIR to a folder that can be written.",
        "current folder": "Change to a folder that can be written, or name another one with -o.",
    }
    for name, fix in fixes.items():
        folder = facts["folders"][name]
        if folder.get("error"):
            yield Finding(name, "problem" if name == "temporary folder" else "warning", folder["error"], fix)
        elif folder["free_mib"] < config.FREE_MIB:
            said = f"{folder['path']}, only {size(folder['free_mib'])} free"
            yield Finding(name, "warning", said, f"Free {config.FREE_MIB} MiB there. Or: {fix}")
        else:
            yield Finding(name, "ok", f"{folder['path']}, {size(folder['free_mib'])} free")


def check_cpu(facts: dict) -> Iterator[Finding]:
    """The engine that needs no GPU."""
    if not facts["torch"].get("error") and not facts["torchvision"].get("error"):
        yield Finding("CPU engine", "ok", "works here: ssdtrt compile --backend torchscript")


CHECKS = {
    "system": check_system,
    "driver": check_driver,
    "GPU": check_gpus,
    "torch": check_torch,
    "torchvision": check_torchvision,
    "Torch-TensorRT": check_torch_tensorrt,
    "front ends": check_front_ends,
    "TensorRT": check_tensorrt,
    "metadata": check_packages,
    "folders": check_folders,
    "CPU engine": check_cpu,
}


def judge_trial(answer: dict | None, keeping: list[str]) -> Finding:
    """What became of the tiny engine; `keeping` are the checks that forbade to try."""
    if answer is None:
        return Finding(TRIAL, "problem", f"not tried; see {', '.join(keeping)}", "Mend what is named first.")
    if answer.get("error"):
        fix = "Install versions that belong together: " + config.HOW_TO_INSTALL
        return Finding(TRIAL, "problem", answer["error"], fix)
    distance, bound = answer["relative_l2"], PRECISIONS["fp16"].bound
    if distance is None or not distance <= bound:
        said = "not finite" if distance is None else f"{distance:.1e}, more than {bound:.0e}"
        fix = "Do not trust engines built here. Install versions that belong together: " + config.HOW_TO_INSTALL
        return Finding(TRIAL, "problem", f"relative L2 to FP32 eager is {said}", fix)
    said = f"FP16 engine built in {answer['seconds']:.1f} s, relative L2 to FP32 eager {distance:.1e}"
    return Finding(TRIAL, "ok", said)


def import_failure(facts: dict, name: str, fix: str) -> Finding:
    """The finding for a package that is missing or cannot be imported."""
    if lacks(facts, name):
        return Finding(TITLES[name], "problem", "not installed", fix)
    return Finding(TITLES[name], "problem", f"cannot be imported ({facts[name]['error']})", fix)


def lacks(facts: dict, name: str) -> bool:
    """Whether the package itself was not found, as against something that it imports."""
    return facts[name].get("missing") == name


def because(reason: str | None) -> str:
    """A reason in brackets, where there is one."""
    return f" ({reason})" if reason else ""


def size(mib: int | None) -> str:
    """MiB in words; "" where it is not known."""
    return "" if mib is None else f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib} MiB"
