"""The documentation as a site: what is amiss in it fails the build, and the pages need no other host."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import warnings

import pytest
from forked_builds import forked

import ssdtrt
from conftest import ROOT

MADE = shutil.ignore_patterns("__pycache__", "reports", "baselines")
FAULTS = """
[a page that is not there](nowhere.md), [a heading that is not there](guide.md#no-such-step),
[one beyond docs/](../benchmarks/README.md#no-such-gate) and ![a picture](images/nothing.jpg).
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The site of a copy of this tree with four faults in one page: (its folder, the exit code, what was amiss)."""
    if importlib.util.find_spec("sphinx") is None:
        pytest.skip("needs the extra docs")
    copy = tmp_path_factory.mktemp("tree")
    for name in ("docs", "benchmarks", "deploy", "examples", "ssdtrt"):
        shutil.copytree(ROOT / name, copy / name, ignore=MADE)
    for page in ROOT.glob("*.md"):
        shutil.copy(page, copy)
    page = copy / "docs" / "versions.md"
    page.write_text(page.read_text(encoding="utf-8") + FAULTS, encoding="utf-8")
    arguments = sphinx_arguments()

    def build():  # In a process that has imported torch.
        from sphinx.cmd.build import main

        os.chdir(copy)
        with open("errors.txt", "w", encoding="utf-8") as sys.stderr:
            warnings.resetwarnings()
            return main(arguments)

    code = forked(build)
    return copy / "build" / "docs", code, (copy / "errors.txt").read_text(encoding="utf-8")


def sphinx_arguments():
    """What `make docs` gives to Sphinx."""
    shown = subprocess.run(["make", "-n", "docs"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (command,) = re.findall(r"bin/python -m sphinx (.*)", shown)
    return command.split()


@pytest.mark.slow
def test_each_fault_fails_the_build_and_nothing_else_is_amiss(built):
    _, code, errors = built
    warnings = [line for line in errors.splitlines() if "WARNING" in line]
    assert code == 1 and len(warnings) == 4, errors
    assert all("docs/versions.md:" in line for line in warnings)
    for fault in ("nowhere.md", "no-such-step", "no-such-gate", "nothing.jpg"):
        assert any(fault in line for line in warnings), (fault, errors)


@pytest.mark.slow
def test_no_page_takes_anything_from_another_host(built):
    folder, *_ = built
    pages, sheets = list(folder.rglob("*.html")), list(folder.rglob("*.css"))
    assert {"index.html", "search.html"} <= {page.name for page in pages} and sheets
    for page in pages:
        text = page.read_text(encoding="utf-8")
        taken = re.findall(r"""<(?:link|script|img|iframe|source)\b[^>]*?(?:href|src|srcset)=["']([^"']+)""", text)
        assert taken and [address for address in taken if re.match(r"(https?:)?//", address)] == [], page.name
    for sheet in sheets:
        text = sheet.read_text(encoding="utf-8")
        assert re.findall(r"""(?:@import\s+|url\()["']?((?:https?:)?//[^"')]+)""", text) == [], sheet.name


@pytest.mark.slow
def test_the_reference_has_every_command_and_public_name(built):
    from ssdtrt.cli import main

    folder, *_ = built
    commands = (folder / "docs" / "commands.html").read_text(encoding="utf-8")
    for name, command in main.commands.items():
        assert f'id="ssdtrt-{name}"' in commands, name
        for option in command.params:
            for flag in [flag for flag in option.opts if flag.startswith("--")]:
                assert f'id="cmdoption-ssdtrt-{name}{flag[1:]}"' in commands, (name, flag)
    python = (folder / "docs" / "api.html").read_text(encoding="utf-8")
    for name in ssdtrt.__all__:
        assert f'id="ssdtrt.{name}"' in python or f'id="{ssdtrt._HOMES[name]}.{name}"' in python, name


@pytest.mark.slow
def test_the_home_page_is_the_readme_and_its_links_lead_to_pages_and_files(built):
    folder, *_ = built
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert text == (folder / "README.html").read_text(encoding="utf-8")
    for address in set(re.findall(r'href="([^"#?:]+)(?:[#?][^"]*)?"', text)):
        assert (folder / address).is_file(), address
    (script,) = re.findall(r'href="(_downloads/\w+/train_scenes\.py)"', text)
    assert (folder / script).read_bytes() == (ROOT / "benchmarks" / "train_scenes.py").read_bytes()
