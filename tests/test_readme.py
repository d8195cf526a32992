"""The README's examples run as they stand, and its table is what the recorded reports say."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT, SAMPLES

README = (ROOT / "README.md").read_text(encoding="utf-8")
MARK = "<!-- executed by tests/test_readme.py -->\n"


def blocks(language):
    """The marked code blocks of one language."""
    return [
        part[len(language) + 4 :].split("```")[0]
        for part in README.split(MARK)[1:]
        if part.startswith(f"```{language}")
    ]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(SAMPLES / "coffee.jpg", tmp_path / "street.jpg")
    return tmp_path


@pytest.mark.slow
def test_commands_run_and_leave_the_files_they_name(folder, ssdtrt, kept_engines):
    (block,) = blocks("sh")
    for line in block.strip().splitlines():
        program, *arguments = shlex.split(line)
        assert program == "ssdtrt"
        result = ssdtrt(*arguments)
        assert result.exit_code == 0, f"{line}: {result.output}"
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert left == {
        "street.jpg", "ssd300.ts", "ssd300.engine.ts", "bench.json", "out/street.jpg", "out/detections.json"
    }  # fmt: skip


@pytest.mark.slow
def test_library_example_runs(folder, kept_engines):
    (block,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", block], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    speedup, distance = map(float, done.stdout.splitlines()[0].split())
    assert speedup > 0 and 0 < distance < 1e-4
    assert len(done.stdout.splitlines()) > 1


def test_table_is_what_the_reports_say():
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks" / "table.py"), "--check"])
    assert done.returncode == 0, "run: python benchmarks/table.py"


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    local = [link for link in links if "://" not in link]
    assert local and all((ROOT / link).exists() for link in local)
