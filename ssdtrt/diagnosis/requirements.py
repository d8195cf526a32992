"""Which versions belong together, as the packages' own metadata tells, and the command that brings those that do."""

from __future__ import annotations

import re

from ssdtrt import config


def install(facts: dict) -> str:
    """The command that brings Torch-TensorRT for the torch there is, or the newest set where there is none for it."""
    version, package = facts["torch"].get("version"), facts["packages"]["torch"]
    oldest, newest = config.TORCH_TENSORRT_KNOWN
    if not version or not facts["torch"].get("cuda") or not oldest <= release(version)[:2] <= newest:
        there = version or package.get("version") or package.get("error")
        return f"pip install {'--force-reinstall ' if there else ''}{config.NEWEST_STACK}"
    major, minor = release(version)[:2]
    command = f"pip install torch=={public(version)} 'torch-tensorrt=={major}.{minor}.*'"
    if (major, minor) != oldest:
        return command
    if release(facts["system"].get("python", ""))[:2] != (3, 10):
        return f"{command} (from PyPI alone it installs with Python 3.10 only)"
    return "pip install 'ssdtrt[tensorrt-pypi]'"


def unmet(facts: dict, name: str, *others: str) -> str | None:
    """What the metadata of `name` asks of `others` (by default of torch) and is not so, in words; None when all is met.

    Of several requirements on one package, which differ by machine, one must be met; extras do not count.
    """
    packages = facts["packages"]
    asked: dict[str, list[str]] = {}
    for line in packages[name].get("requires") or ():
        requirement, _, marker = line.partition(";")
        match = re.match(r"\s*([A-Za-z0-9._-]+)\s*\(?([^()]*)\)?\s*$", requirement)
        if match and "extra" not in marker and match[1] in (others or ("torch",)):
            asked.setdefault(match[1], []).append(match[2].strip())
    for other, ranges in asked.items():
        package = packages[other]
        version = facts[other].get("version") if other in facts else package.get("version")
        if version is None and not package.get("error"):
            return f"{name} {packages[name]['version']} needs {other}{ranges[0]}, which is not installed"
        if version and not any(all(accepts(part, version) for part in text.split(",") if part) for text in ranges):
            return f"{name} {packages[name]['version']} needs {other}{ranges[0]}; found {version}"
    return None


def accepts(part: str, version: str) -> bool:
    """Whether a version fits `==2.14.0`, `>=2.2`, `<2.3.0` and their like; other forms count as met.

    Only release numbers are compared: the suffixes of builds (2.2.2+cu121, 2.12.0a0) say nothing about fitting.
    """
    match = re.fullmatch(r"\s*(==|>=|<=|<|>)\s*(\d+(?:\.\d+)*)\s*", part)
    if not match:
        return True
    wanted, found = release(match[2]), release(version)
    length = max(len(wanted), len(found))
    a, b = ((*numbers, *[0] * (length - len(numbers))) for numbers in (found, wanted))
    return {"==": a == b, ">=": a >= b, "<=": a <= b, "<": a < b, ">": a > b}[match[1]]


def release(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: (2, 2, 2) for 2.2.2+cu121; (0,) where there are none."""
    match = re.match(r"\d+(?:\.\d+)*", version or "")
    return tuple(map(int, match[0].split("."))) if match else (0,)


def public(version: str) -> str:
    """A version as package indexes know it, without the local part."""
    return version.split("+")[0]
