"""Tests of parsing the output of nvidia-smi."""

import os
import time

import pytest
from drivers import nvidia_smi, nvml  # noqa: F401

from ssdtrt import config
from ssdtrt.system import nvidia_smi as asked
from ssdtrt.system.nvidia_smi import NoAnswer, _bits, _number, _parse_state, _query

TWO = "NVIDIA H200, 580.159.04, 143771, 143000, 9.0\nTesla, the 2nd, 580.159.04, 16384, 500, 7.5"


def test_two_gpus(nvidia_smi):  # noqa: F811
    nvidia_smi(f"/bin/cat <<'END'\n{TWO}\nEND")
    assert asked.gpus() == [
        ("580.159.04", "NVIDIA H200", "9.0", 143771, 143000),
        ("580.159.04", "Tesla, the 2nd", "7.5", 16384, 500),
    ]


def test_a_driver_that_does_not_know_the_compute_capability(nvidia_smi):  # noqa: F811
    nvidia_smi(
        'case "$1" in *compute_cap*) echo \'Field "compute_cap" is not a valid field to query.\'; exit 2;; esac\n'
        "echo 'Tesla T4, 470.57.02, 15109, [N/A]'"
    )
    assert asked.gpus() == [("470.57.02", "Tesla T4", None, 15109, None)]


@pytest.mark.parametrize(
    "script, reason",
    [
        ("echo 'NVIDIA-SMI has failed'; exit 9", "nvidia-smi ended with exit code 9: NVIDIA-SMI has failed"),
        ("echo 'no such argument'; exit 2", "nvidia-smi ended with exit code 2: no such argument"),
        ("exit 9", "nvidia-smi ended with exit code 9: it printed nothing"),
        ("kill -11 $$", "nvidia-smi ended with signal 11: it printed nothing"),
        ("echo No devices were found", "nvidia-smi did not print a list of GPUs: No devices were found"),
        ("echo a, b, c, d, e", "nvidia-smi did not print a list of GPUs: a, b, c, d, e"),
        ("printf '\\377\\000\\n'", "nvidia-smi did not print a list of GPUs: \ufffd\0"),
        ("exit 0", "nvidia-smi lists no GPU"),
    ],
)
def test_a_bad_answer_is_a_reason(nvidia_smi, script, reason):  # noqa: F811
    nvidia_smi(script)
    with pytest.raises(NoAnswer) as caught:
        asked.gpus()
    assert str(caught.value) == reason


def test_one_that_is_missing_or_no_program(nvidia_smi):  # noqa: F811
    with pytest.raises(NoAnswer, match="nvidia-smi is not on the PATH"):
        asked.gpus()
    nvidia_smi("").write_bytes(b"\0\0\0\0")
    with pytest.raises(NoAnswer, match=r"nvidia-smi cannot be run \(Exec format error\)"):
        asked.gpus()


@pytest.mark.parametrize("busy", [None, lambda: time.sleep(0.01)])
def test_one_that_hangs_is_ended(nvidia_smi, monkeypatch, tmp_path, busy):  # noqa: F811
    monkeypatch.setattr(config, "SMI_SECONDS", 0.2)
    nvidia_smi(f"echo $$ > {tmp_path}/pid\nexec /bin/sleep 60")
    with pytest.raises(NoAnswer, match=r"nvidia-smi did not answer within 0.2 s"):
        asked.state("0", busy)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_it_is_ended_when_the_work_meanwhile_fails(nvidia_smi, tmp_path):  # noqa: F811
    nvidia_smi(f"echo $$ > {tmp_path}/pid\nexec /bin/sleep 60")

    def busy():
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _query([], busy)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_question(nvidia_smi):  # noqa: F811
    nvidia_smi('echo "$@"')
    assert _query(["-i", "0"]) == ["-i 0 --format=csv,noheader,nounits"]


def test_the_gpu_is_kept_busy_until_it_answers(nvidia_smi):  # noqa: F811
    nvidia_smi("/bin/sleep 0.2; echo 1, 2, 3, 4, 5, 0x20")
    calls = []
    assert asked.state("0", lambda: calls.append(time.sleep(0.01))) == ([1, 2, 3, 4, 5], 0x20)
    assert len(calls) > 3


def test_an_older_driver_is_asked_by_the_older_name(nvidia_smi):  # noqa: F811
    nvidia_smi('case "$3" in *clocks_event*) exit 2;; *clocks_throttle*) echo "1, 2, 3, 4, 5, 0x20";; *) exit 3;; esac')
    assert asked.state("0", None) == ([1, 2, 3, 4, 5], 0x20)
    nvidia_smi('case "$3" in *clocks_*) exit 2;; *) echo "1, 2, 3, 4, 5";; esac')
    assert asked.state("0", None) == ([1, 2, 3, 4, 5], None)


def test_a_driver_that_fails_is_asked_once(nvidia_smi, tmp_path):  # noqa: F811
    nvidia_smi(f"echo asked >> {tmp_path}/count; exit 9")
    with pytest.raises(NoAnswer):
        asked.state("0", None)
    assert (tmp_path / "count").read_text() == "asked\n"


@pytest.mark.parametrize(
    "line, values, bits",
    [
        ("1980, 1980, 3201, 34, 119.45, 0x0000000000000001", [1980, 1980, 3201, 34, 119.45], 1),
        ("[N/A], [Not Supported], 405, 51, [Unknown Error], [N/A]", [None, None, 405, 51, None], None),
        ("1410, 1410, 1593, 40, 60.1", [1410, 1410, 1593, 40, 60.1], None),
        ("no devices were found", [None] * 5, None),
    ],
)
def test_state(line, values, bits):
    assert _parse_state([line, "9, 9, 9, 9, 9, 0x0"]) == (values, bits)  # The first line belongs to the queried GPU.


def test_no_state():
    with pytest.raises(NoAnswer):
        _parse_state([])


def test_processes(nvidia_smi):  # noqa: F811
    nvidia_smi("echo '4711, /usr/bin/python3'; echo '815, tritonserver, --model a'; echo No running processes found")
    assert asked.processes("0") == [(4711, "/usr/bin/python3"), (815, "tritonserver, --model a")]


@pytest.mark.parametrize("text, value", [("1.5", 1.5), ("[N/A]", None), ("N/A", None), ("", None), ("12 W", None)])
def test_number(text, value):
    assert _number(text) == value


@pytest.mark.parametrize("text, value", [("0x00000000000000C0", 0xC0), ("0x0", 0), ("[N/A]", None), ("", None)])
def test_bits(text, value):
    assert _bits(text) == value
