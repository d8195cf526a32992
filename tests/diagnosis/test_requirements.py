"""Which versions fit each other, and what installs those that do."""

import platform

import pytest
from machines import ABSENT, OLDEST, machine

from ssdtrt.diagnosis.facts import Failure, Package, Torch
from ssdtrt.diagnosis.requirements import install_command, is_known, parse_version, public, unmet
from ssdtrt.system.gpu_state import Gpu

GPUS = (Gpu("Some GPU"),)


def requiring(version, *lines):
    """A machine with this torch, and a Torch-TensorRT that requires this."""
    return machine(torch=Torch(version, "13.0", GPUS), packages={"torch-tensorrt": Package("1.0", lines)})


@pytest.mark.parametrize(
    "specifier, version, fits",
    [
        ("==2.14.0", "2.14.0+cu130", True), ("==2.14.0", "2.14", True), ("==2.14.0", "2.14.1", False),
        ("==2.2.2", "2.2.2+cu121", True), (">=2.14.0", "2.14.0a0+5228ff4f.nv25.8", True), (">=2.2.0", "2.10.0", True),
        ("<2.3.0", "2.2.2", True), ("<2.3.0", "2.10.0", False), ("<2.3.0", "2.3.0a0", False), ("<8.7", "8.6.0", True),
        ("<8.7", "8.7", False), ("<=8.7", "8.7.0", True), (">11", "11.1", True), (">11", "11.0", False),
        ("!=8.3.*", "8.3.1", False), ("!=8.3.*", "8.4.0", True), ("~=2.2.0", "2.2.9", True), ("~=2.2.0", "2.3.0", False),
        ("", "2.2.9.dev20240101+cpu", True),
    ],
)  # fmt: skip
def test_versions_that_fit(specifier, version, fits):
    reason = unmet(requiring(version, f"torch{specifier}"), "torch-tensorrt", "torch")
    assert reason == (None if fits else f"torch-tensorrt 1.0 needs torch{specifier}; found {version}")


def test_old_and_new_forms_of_a_requirement():
    for line in ("torch (<2.3.0,>=2.2.0)", "torch<2.3.0,>=2.2.0", "torch >=2.2.0, <2.3.0", "Torch<2.3.0,>=2.2.0"):
        assert unmet(requiring("2.2.2", line), "torch-tensorrt", "torch") is None
        reason = unmet(requiring("2.3.0", line), "torch-tensorrt", "torch")
        assert reason == "torch-tensorrt 1.0 needs torch<2.3.0,>=2.2.0; found 2.3.0"


def test_only_what_this_machine_requires_counts():
    """Markers are evaluated: of the requirements for several kinds of machines, those of this one must be met."""
    here, elsewhere = platform.machine(), "another-machine"
    lines = (
        f"torch<2.9.0,>=2.8.0; platform_machine == '{here}'",
        f"torch<2.8.0,>=2.7.0; platform_machine == '{elsewhere}'",
        "torch==1; extra == 'x'",
        "torch==1; python_version < '3'",
    )
    for version, fits in (("2.8.0", True), ("2.7.1", False), ("2.9.0", False), ("1.0", False)):
        assert (unmet(requiring(version, *lines), "torch-tensorrt", "torch") is None) is fits


def test_what_pip_does_not_know_either_is_left_out():
    assert unmet(requiring("2.2.2", "torch >= of my own", "", "!"), "torch-tensorrt", "torch") is None


def test_names_are_written_in_several_ways():
    facts = machine(packages={"torch-tensorrt": Package("1.0", ("TensorRT_cu13>=12",))})
    reason = unmet(facts, "torch-tensorrt", "tensorrt-cu13")
    assert reason == "torch-tensorrt 1.0 needs tensorrt-cu13>=12; found 11.1.0.5"


def test_what_is_not_installed_or_not_known():
    facts = machine(packages={"tensorrt-cu13": ABSENT})
    assert unmet(facts, "torch-tensorrt", "tensorrt-cu13") == (
        "torch-tensorrt 2.14.0 needs tensorrt-cu13<11.2.0,>=11.1.0, which is not installed"
    )
    assert unmet(machine(packages={"tensorrt-cu13": Failure("damaged")}), "torch-tensorrt", "tensorrt-cu13") is None
    assert unmet(machine(packages={"torch-tensorrt": Failure("damaged")}), "torch-tensorrt", "torch") is None
    assert unmet(machine(torch=Failure("broken")), "torch-tensorrt", "torch") is None  # Its metadata has a version.


@pytest.mark.parametrize(
    "version, release", [("2.2.2+cu121", (2, 2, 2)), ("2.12.0a0", (2, 12, 0)), ("3.13.0rc1", (3, 13, 0)), ("3.13.0+", (3, 13, 0))]
)  # fmt: skip
def test_the_release_of_a_version(version, release):
    assert parse_version(version).release == release


def test_public_and_known_versions():
    assert (public("2.2.2+cu121"), public("2.12.0a0+5228")) == ("2.2.2", "2.12.0a0")
    known = (2, 2), (2, 14)
    assert [is_known(version, known) for version in ("2.1.9", "2.2.0", "2.14.3", "2.15.0")] == [
        False,
        True,
        True,
        False,
    ]


def test_the_command_for_the_torch_there_is():
    assert install_command(machine()) == "pip install torch==2.14.0 'torch-tensorrt==2.14.*'"
    assert install_command(OLDEST) == "pip install 'ssdtrt[tensorrt-pypi]'"
