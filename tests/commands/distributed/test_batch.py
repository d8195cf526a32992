"""`ssdtrt detect --ray`: what is refused before a cluster is asked. The runs themselves are in tests/clusters."""

import sys
from importlib.util import find_spec

import pytest
from command_line import assert_refused

from ssdtrt.clusters import session


@pytest.fixture
def never_connected(monkeypatch):
    """A run that gets as far as a cluster is a failure."""
    monkeypatch.setattr(session, "connect", lambda *_: pytest.fail("a cluster was asked"))


@pytest.mark.parametrize(("options", "message"), [
    ((), "--ray writes Parquet files into a folder: give -o."),
    (("-o", "x.json"), "-o is a folder, and x.json is called like JSON: give a folder such as -o out."),
    (("-o", "out", "--jsonl", "a.jsonl"), "--jsonl is not for --ray."),
    (("-o", "out", "--coco", "-"), "--coco is not for --ray."),
    (("-o", "out", "--save-crops"), "--save-crops is not for --ray."),
    (("-o", "out", "--no-labels"), "--no-labels is not for --ray."),
    (("-o", "out", "--workers", "2"), "--workers is not for --ray."),
    (("-o", "out", "--timing"), "--timing is not for --ray."),
    (("-o", "out", "--video"), "--video is not for --ray."),
    (("-o", "out", "--device", "cuda:1"), "--device cuda:1 names one GPU; give cuda or cpu with --ray, or leave it out."),
    (("-o", "out", "clip.mp4"), "clip.mp4 is a video; --ray is for pictures."),
    (("-o", "known.ts"), "known.ts is an input; give another path for -o."),
])  # fmt: skip
def test_wrong_usage_is_two(ssdtrt, never_connected, options, message):
    done = ssdtrt("detect", "known.ts", "in", "--ray", "local", *options)
    assert done.exit_code == 2 and message in done.stderr and done.stdout == ""


@pytest.mark.parametrize("option", ["--actors", "--block-size"])
def test_options_of_the_cluster_need_one(ssdtrt, option):
    done = ssdtrt("detect", "known.ts", "in", option, 2)
    assert done.exit_code == 2 and f"{option} is for --ray." in done.stderr


def test_what_is_not_there_ends_with_one_line(ssdtrt, never_connected, known, tmp_path, pictures):
    if not find_spec("ray"):
        pytest.skip("needs the extra ray")
    (tmp_path / "empty").mkdir()
    pictures("a.png")
    end = ("--ray", "local", "-o", "out", "-q")
    assert_refused(ssdtrt("detect", known, "empty", *end), "empty holds no pictures.")
    assert_refused(ssdtrt("detect", known, "nosuch://a/b", *end), "nosuch://a/b cannot be opened with fsspec: Protocol "
                   "not known: nosuch")  # fmt: skip
    refused = ssdtrt("detect", known, "pictures", "--classes", "cat,dgo", *end)
    assert_refused(refused, "There is no class 'dgo'; expected a name or a number of 1..80. Did you mean 'dog'?")
    refused = ssdtrt("detect", known, "pictures", "--sha256", "0" * 64, *end)
    assert refused.exit_code == 1 and "expected 0000" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_ray_has_to_be_installed(ssdtrt, known, pictures, monkeypatch):
    pictures("a.png")
    monkeypatch.setattr(session.importlib.util, "find_spec", lambda name: None)
    done = ssdtrt("detect", known, "pictures", "--ray", "local", "-o", "out", "-q")
    assert_refused(done, "--ray needs Ray Data: pip install 'ssdtrt[ray]'")


def test_ray_is_imported_for_a_cluster_alone(ssdtrt, never_connected, known, pictures):
    if "ray" in sys.modules:
        pytest.skip("another test has imported it")
    pictures("a.png")
    assert ssdtrt("detect", known, "pictures", "--jsonl", "-").exit_code == 0
    assert "ray" not in sys.modules
