"""What nvidia-smi says, in the forms in which it says it."""

import time
from types import SimpleNamespace

import pytest
import torch
from test_machine import nvidia_smi  # noqa: F401

from ssdtrt import config
from ssdtrt.system import gpu_state
from ssdtrt.system.gpu_state import ask, number, parse_processes, parse_state, throttles

H200 = "1980, 1980, 3201, 34, 119.45, 0x0000000000000001\n"


def test_state():
    assert parse_state(H200) == {
        "sm_mhz": 1980.0, "sm_max_mhz": 1980.0, "memory_mhz": 3201.0, "temperature_c": 34.0, "power_w": 119.45,
        "throttled": [],
    }  # fmt: skip


def test_state_of_a_gpu_that_tells_little():
    assert parse_state("[N/A], [Not Supported], 405, 51, [Unknown Error], [N/A]") == {
        "sm_mhz": None, "sm_max_mhz": None, "memory_mhz": 405.0, "temperature_c": 51.0, "power_w": None,
        "throttled": None,
    }  # fmt: skip


def test_state_without_reasons_and_without_anything():
    found = parse_state("1410, 1410, 1593, 40, 60.1")
    assert (found["power_w"], found["throttled"]) == (60.1, None)
    assert parse_state("") is parse_state("\n") is None
    assert parse_state("no devices were found") == dict.fromkeys([*gpu_state.FIELDS.values(), "throttled"])


def test_the_first_gpu_is_meant():
    assert parse_state("1, 2, 3, 4, 5, 0x4\n9, 9, 9, 9, 9, 0x0\n")["throttled"] == ["power limit"]


@pytest.mark.parametrize(
    "mask, words",
    [
        ("0x0000000000000000", []),
        ("0x0000000000000003", []),  # idle, clocks set by an application
        ("0x0000000000000004", ["power limit"]),
        ("0x0000000000000028", ["hardware slowdown", "temperature"]),
        ("0x00000000000000C0", ["temperature (hardware)", "power brake"]),
        ("[N/A]", None),
        ("", None),
    ],
)
def test_throttles(mask, words):
    assert throttles(mask) == words


@pytest.mark.parametrize("text, value", [("1.5", 1.5), ("[N/A]", None), ("N/A", None), ("", None), ("12 W", None)])
def test_number(text, value):
    assert number(text) == value


def test_processes():
    said = "4711, /usr/bin/python3\n815, tritonserver, --model a\n"
    assert parse_processes(said, own=4711) == ["tritonserver, --model a (815)"]
    assert parse_processes("4711, python3\n", own=4711) == parse_processes("", 1) == []


def test_in_a_container_one_process_is_taken_for_this_one():
    assert parse_processes("99001, [Not Found]\n99002, [Not Found]\n", own=17) == ["[Not Found] (99002)"]
    assert parse_processes("99001, [Not Found]\n", own=17) == []
    assert parse_processes("No running processes found\n", own=17) == []


@pytest.mark.parametrize(
    "uuid, visible, index, expected",
    [
        ("5a3c", "1", 0, "GPU-5a3c"),
        ("GPU-5a3c", None, 0, "GPU-5a3c"),
        (None, None, 1, "1"),
        (None, "3,GPU-77", 0, "3"),
        (None, "3, GPU-77", 1, "GPU-77"),
    ],
)
def test_which_gpu_is_meant(monkeypatch, uuid, visible, index, expected):
    properties = SimpleNamespace() if uuid is None else SimpleNamespace(uuid=uuid)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_state.selection(torch.device("cuda", index)) == ["-i", expected]


def test_asking(nvidia_smi):  # noqa: F811
    assert ask(["--version"]) is None  # not installed
    nvidia_smi('echo "$@"')
    assert ask(["-i", "0"]) == "-i 0 --format=csv,noheader,nounits\n"
    nvidia_smi("echo broken; exit 2")
    assert ask([]) is None


def test_it_is_kept_busy_while_it_looks(nvidia_smi):  # noqa: F811
    nvidia_smi("/bin/sleep 0.2; echo done")
    calls = []
    assert ask([], lambda: calls.append(time.sleep(0.01))) == "done\n"
    assert len(calls) > 3


def test_it_is_not_waited_for_for_ever(nvidia_smi, monkeypatch):  # noqa: F811
    monkeypatch.setattr(config, "SMI_SECONDS", 0.2)
    nvidia_smi("exec /bin/sleep 60")
    started = time.monotonic()
    assert ask([]) is None and time.monotonic() - started < 10


def test_an_older_driver_is_asked_by_the_older_name(nvidia_smi, monkeypatch):  # noqa: F811
    monkeypatch.setattr(gpu_state, "selection", lambda device: ["-i", "0"])
    nvidia_smi('case "$1" in *clocks_event*) exit 2;; *clocks_throttle*) echo "1, 2, 3, 4, 5, 0x20";; *) exit 3;; esac')
    assert gpu_state.read_state(torch.device("cuda"))["throttled"] == ["temperature"]
    nvidia_smi('case "$1" in *clocks_*) exit 2;; *) echo "1, 2, 3, 4, 5";; esac')
    found = gpu_state.read_state(torch.device("cuda"))
    assert (found["sm_mhz"], found["throttled"]) == (1.0, None)
    nvidia_smi("exit 9")
    assert gpu_state.read_state(torch.device("cuda")) is None
    assert gpu_state.other_processes(torch.device("cuda")) == []
