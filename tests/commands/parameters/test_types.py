"""The kinds of values that options take, and what a shell completes."""

import os
import subprocess
import sys

import click
import pytest
from click.shell_completion import BashComplete
from command_line import ENVIRONMENT

from known import known_file
from ssdtrt import config
from ssdtrt.artifact.request import BatchRange
from ssdtrt.cli import main
from ssdtrt.commands.parameters.types import Device, Names, Percent, Positive, Range, Score, Sizes, Values


@pytest.mark.parametrize(
    "kind, text, value",
    [
        (Range(), "1:8:32", BatchRange(1, 8, 32)),
        (Range(), "8:8:8", BatchRange(8, 8, 8)),
        (Sizes(), "1,8,32", [1, 8, 32]),
        (Sizes(), "4096", [4096]),
        (Sizes(), "8,1,8", [8, 1]),
        (Device(), "cuda:12", "cuda:12"),
        (Names(("a", "b")), "b, a", ["b", "a"]),
        (Score(), "0.5", 0.5),
        (Percent(), "2.5 %", 0.025),
        (Percent(), "5%", 0.05),
        (Percent(), "5", 0.05),
        (Percent(), "12.5", 0.125),
        (Percent(), "0", 0.0),
        (Percent(), "0.05%", 0.0005),
        (Positive(), "1e-3", 1e-3),
        (Values(), "0:4095", (0, 4095)),
        (Values(), "-1:1.5", (-1, 1.5)),
    ],
)
def test_values(kind, text, value):
    assert kind.convert(text, None, None) == value


ORDER = "A batch range is MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX; found {}."
FORM = "A batch is a number or MIN:OPT:MAX, such as 8 or 1:8:32; found {!r}."


@pytest.mark.parametrize(
    "kind, text, message",
    [
        (Range(), "8:1:32", ORDER.format("8:1:32")),
        (Range(), "1:32:8", ORDER.format("1:32:8")),
        (Range(), "0:1:2", ORDER.format("0:1:2")),
        (Range(), "1:2:3:4", FORM.format("1:2:3:4")),
        (Range(), "a:b:c", FORM.format("a:b:c")),
        (Range(), "1:²:3", FORM.format("1:²:3")),
        (Range(), "1:8:", FORM.format("1:8:")),
        (Range(), "8", "'8' is not MIN:OPT:MAX, such as 1:8:32."),
        (Range(), "", "'' is not MIN:OPT:MAX, such as 1:8:32."),
        (Range(), "1:8:5000", "5000 is not in the range 1<=x<=4096."),
        (Sizes(), "0", "0 is not in the range 1<=x<=4096."),
        (Sizes(), "8,99999999999999999999", "99999999999999999999 is not in the range 1<=x<=4096."),
        (Sizes(), "1,,2", "'' is not a valid whole number."),
        (Sizes(), "one", "'one' is not a valid whole number."),
        (Sizes(), "1:8:32", "'1:8:32' is not a valid whole number."),
        (Device(), "gpu", "'gpu' is not cpu, cuda or cuda:N."),
        (Device(), "cuda:9999", "'cuda:9999' is not cpu, cuda or cuda:N."),
        (Names(("a", "b")), "a,c", "'c' is not one of a, b."),
        (Score(), "1.5", "1.5 is not in the range 0<=x<=1."),
        (Score(), "-0.1", "-0.1 is not in the range 0<=x<=1."),
        (Score(), "nan", "'nan' is not in the range 0<=x<=1."),
        (Percent(), "five", "'five' is not a percentage, such as 5, 5% or 2.5%."),
        (Percent(), "0.05", "'0.05' may be 0.05 % or 5 %; give it with its sign."),
        (Positive(), "0", "'0' is not a number above 0."),
        (Positive(), "inf", "'inf' is not a number above 0."),
        (Positive(), "nan", "'nan' is not a number above 0."),
        (Positive(), "x", "'x' is not a number above 0."),
    ],
)
def test_what_is_none_is_refused(kind, text, message):
    with pytest.raises(click.BadParameter) as caught:
        kind.convert(text, None, None)
    assert caught.value.message == message


def completed(*words):
    """What a shell gets for the last of these words: (type, value) of each item."""
    shell = BashComplete(main, {}, "ssdtrt", "_SSDTRT_COMPLETE")
    return [(item.type, item.value) for item in shell.get_completions(list(words[:-1]), words[-1])]


def plain(*names):
    return [("plain", name) for name in names]


def commands(group=main, words=()):
    """Every command that is no group, with the words that lead to it."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name), command


def test_every_option_that_takes_a_file_or_a_folder_completes_it():
    found = set()
    for words, command in commands():
        for option in command.params:
            kind = {"FILE": "file", "DIR": "dir"}.get(option.metavar)
            if isinstance(option, click.Option) and kind:
                found.add((words[-1], option.opts[-1]))
                assert (kind, "x") in completed(*words, option.opts[-1], "x"), (words, option)
    assert {("export", "--output"), ("evaluate", "--images"), ("list", "--json"), ("bench", "--plot")} <= found


def test_every_argument_is_completed_as_a_path_but_what_is_in_the_cache():
    found = []
    for words, command in commands():
        arguments = [one for one in command.params if isinstance(one, click.Argument)]
        for number in range(len(arguments)):
            if completed(*words, *["a"] * number, "x") != [("file", "x")]:
                found.append((*words, arguments[number].name))
    assert found == [("cache", "clear", "names")]


@pytest.mark.parametrize(
    "line, expected",
    [
        ("ca", plain("cache")),
        ("cache ", plain("list", "clear")),
        ("compile --backend t", plain("tensorrt", "torchscript")),
        ("export --weights ", [("file", ""), *plain("coco", "scenes", "random")]),
        ("run --weights r", [("file", "r"), *plain("random")]),
        ("export --labels c", [("file", "c"), *plain("coco")]),
        ("bench --against eager-fp16", plain("eager-fp16", "eager-fp16-graph")),
        ("bench --against compile,eng", plain("compile,engine", "compile,engine-plain")),
        ("evaluate --against eager-fp32,", plain("eager-fp32,eager-fp16")),
        ("verify --device cp", plain("cpu")),
        ("detect a.ts b.jpg --classes person,tr", plain("person,train", "person,truck", "person,traffic light")),
        ("bench --batch-size 1", []),
    ],
)
def test_names_are_completed(line, expected):
    assert sorted(completed(*line.split(" "))) == sorted(expected)


def test_the_class_names_are_those_of_the_file(tmp_path):
    labels = ("background", "disc", "dish, large", "disk", *config.COCO_LABELS[4:])
    file = str(known_file(tmp_path / "known.ts", labels=labels))
    assert completed("detect", file, "b.jpg", "--classes", "dis") == plain("disc", "disk")


def test_the_gpus_are_those_of_the_driver(monkeypatch):
    monkeypatch.setattr(os, "listdir", {"/proc/driver/nvidia/gpus": ["0000:18:00.0", "0000:2a:00.0"]}.__getitem__)
    assert completed("bench", "--device", "c") == plain("cpu", "cuda", "cuda:0", "cuda:1")


def test_what_is_in_the_cache_is_completed(tmp_path, monkeypatch):
    monkeypatch.setenv("SSDTRT_CACHE", str(tmp_path))
    key = "0123456789abcdef" * 4
    (tmp_path / f"{key}.ts").touch()
    assert completed("cache", "clear", "") == plain("engine", "timings", "damaged", "unfinished", "0123456789ab")
    assert completed("cache", "clear", "0123456789abc") == plain(key)
    assert completed("cache", "clear", "damaged", "d") == []
    monkeypatch.setenv("SSDTRT_CACHE_LIMIT", "wrong")
    assert completed("cache", "clear", "d") == plain("damaged")


def test_a_process_completes_without_torch_and_quotes_for_bash(tmp_path):
    file = known_file(tmp_path / "known.ts")
    code = (
        "import sys\nfrom ssdtrt.cli import main\n"
        "try:\n    main(prog_name='ssdtrt')\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    asked = {"COMP_WORDS": f"ssdtrt detect {file} b.jpg --classes tra", "COMP_CWORD": "5"}
    environment = {**ENVIRONMENT, **asked, "_SSDTRT_COMPLETE": "bash_complete"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.stderr, done.stdout) == ("", "plain,train\nplain,'traffic light'\n[]\n")
