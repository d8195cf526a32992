"""Compare installed versions with the requirements in the metadata of packages, and choose a command to install."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from ssdtrt import config
from ssdtrt.diagnosis.facts import Facts, Failure, Package
from ssdtrt.system.versions import pip_install


def install_command(facts: Facts) -> str:
    """Return the command that installs Torch-TensorRT for the installed torch, or a new torch too if there is none."""
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
    return pip_install("tensorrt-pypi")


def unmet(facts: Facts, name: str, *others: str) -> str | None:
    """Return the first requirement of a package that is not met, in words; None if all are met.

    Only requirements whose markers hold on this machine count, and no requirements of extras.

    Args:
        facts: What is installed.
        name: The package.
        others: The names of the required packages to look at, of those in `PACKAGES`.
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
    """Parse a version, without the suffixes of builds and pre-releases (2.2.2+cu121, 2.12.0a0+5228).

    They do not decide what fits. The version of a Python that was built from its repository ends in a bare `+`.
    """
    return Version(Version(version.removesuffix("+")).base_version)


def public(version: str) -> str:
    """Return a version without its local part, as on package indexes."""
    return Version(version).public


def is_known(version: str, known: tuple[tuple[int, int], tuple[int, int]]) -> bool:
    """Return whether a version is between the oldest and the newest minor version."""
    return known[0] <= parse_version(version).release[:2] <= known[1]


def _requirements(package: Package) -> Iterator[Requirement]:
    """Yield the requirements that hold on this machine."""
    for line in package.requires:
        with contextlib.suppress(InvalidRequirement):  # In the metadata of an old package; pip ignores it too.
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                yield requirement


def _installed(facts: Facts, name: str) -> str | None:
    """Return the version of a package, from its import if possible; None if not installed, "" if not known."""
    imported = {"torch": facts.torch, "torchvision": facts.torchvision}.get(name)
    if imported is not None and not isinstance(imported, Failure):
        return imported.version
    package = facts.packages[name]
    return "" if isinstance(package, Failure) else package.version
