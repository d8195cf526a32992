"""Which versions belong together, as the packages' own metadata has it, and the command that installs such a set."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from ssdtrt import config
from ssdtrt.diagnosis.facts import Facts, Failure, Package


def install_command(facts: Facts) -> str:
    """Return the command that installs Torch-TensorRT for the torch there is, or the newest set where none is for it."""
    torch, package, oldest = facts.torch, facts.packages["torch"], config.TORCH_TENSORRT_VERSIONS[0]
    if isinstance(torch, Failure) or not torch.cuda or not is_known(torch.version, config.TORCH_TENSORRT_VERSIONS):
        there = not isinstance(torch, Failure) or isinstance(package, Failure) or package.version
        return f"pip install {'--force-reinstall ' if there else ''}{config.NEWEST_STACK}"
    version = parse_version(torch.version)
    command = f"pip install torch=={public(torch.version)} 'torch-tensorrt=={version.major}.{version.minor}.*'"
    if version.release[:2] != oldest:
        return command
    if isinstance(facts.system, Failure) or parse_version(facts.system.python).release[:2] != (3, 10):
        return f"{command} (from PyPI alone it installs with Python 3.10 only)"
    return "pip install 'ssdtrt[tensorrt-pypi]'"


def unmet(facts: Facts, name: str, *others: str) -> str | None:
    """Return what a package requires of others and does not find, in words; None when all is met.

    Only requirements whose markers hold on this machine count, and none of an extra.

    Args:
        facts: What is installed.
        name: The package.
        others: The packages that it may require, by their names among `PACKAGES`.
    """
    package = facts.packages[name]
    if isinstance(package, Failure):
        return None
    for requirement in _requirements(package):
        other = canonicalize_name(requirement.name)
        if other not in others:
            continue
        needed = f"{name} {package.version} needs {other}{requirement.specifier}"
        found = _installed(facts, other)
        if found is None:
            return f"{needed}, which is not installed"
        if found and not requirement.specifier.contains(parse_version(found), prereleases=True):
            return f"{needed}; found {found}"
    return None


def parse_version(version: str) -> Version:
    """Return the release that a version is, or is made for.

    Suffixes of builds and pre-releases (2.2.2+cu121, 2.12.0a0+5228) say nothing about what fits. The version of a Python
    that was built from its repository ends in a bare `+`.
    """
    return Version(Version(version.removesuffix("+")).base_version)


def public(version: str) -> str:
    """Return a version as package indexes have it, without the local part."""
    return Version(version).public


def is_known(version: str, known: tuple[tuple[int, int], tuple[int, int]]) -> bool:
    """Return whether a version is from the oldest to the newest minor version."""
    return known[0] <= parse_version(version).release[:2] <= known[1]


def _requirements(package: Package) -> Iterator[Requirement]:
    """The requirements that count here."""
    for line in package.requires:
        with contextlib.suppress(InvalidRequirement):  # Of an old package: pip does not know it either.
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                yield requirement


def _installed(facts: Facts, name: str) -> str | None:
    """The version of a package, that of the imported module where it is imported; None without, "" if not known."""
    imported = {"torch": facts.torch, "torchvision": facts.torchvision}.get(name)
    if imported is not None and not isinstance(imported, Failure):
        return imported.version
    package = facts.packages[name]
    return "" if isinstance(package, Failure) else package.version
