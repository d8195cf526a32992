"""Record the call signatures of the torch_tensorrt versions that ssdtrt supports.

torch_tensorrt cannot be imported without a GPU, so the tests compare the calls that
ssdtrt makes with signatures recorded from the sources. This script downloads the wheel
of each version, reads its sources with ``ast`` (nothing is imported) and writes the
signatures of ``compile``, two functions of ``ts``, ``Input`` and ``Device`` as JSON.

Run it again when a version is added to VERSIONS, or when the tests need another name::

    python scripts/record_torch_tensorrt_signatures.py [--output PATH]
"""

import argparse
import ast
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from email import message_from_bytes
from pathlib import Path

VERSIONS = ("2.2.0", "2.8.0", "2.12.1", "2.14.0")
# One Python version and these platforms have a wheel of every version above.
PYTHON = "3.10"
PLATFORMS = ("manylinux_2_34_x86_64", "manylinux_2_28_x86_64")
OUTPUT = Path(__file__).resolve().parent.parent / "tests/data/torch_tensorrt_signatures.json"


def download(version, folder):
    """Download the wheel of one version into an empty folder and return its path."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", PYTHON, "--dest", str(folder)]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    subprocess.run([*command, f"torch-tensorrt=={version}"], check=True)
    (wheel,) = Path(folder).glob("*.whl")
    return wheel


def find(body, kind, name):
    """Return the only class or function of that name in a list of statements."""
    (node,) = [n for n in body if isinstance(n, kind) and n.name == name]
    return node


def signature(function):
    """Return the parameter names in order, without self, and whether **kwargs is taken."""
    arguments = function.args
    names = [a.arg for a in arguments.posonlyargs + arguments.args + arguments.kwonlyargs]
    return {
        "parameters": [name for name in names if name != "self"],
        "var_keyword": arguments.kwarg is not None,
    }


def keywords(function):
    """Return the names that a function reads from its own **kwargs."""
    code = "\n".join(ast.unparse(n) for n in function.body)  # no comments, one style of quotes
    patterns = (r"kwargs\['(\w+)'\]", r"'(\w+)' (?:not )?in kwargs\b", r"kwargs\.get\('(\w+)'")
    return sorted({name for pattern in patterns for name in re.findall(pattern, code)})


def record(wheel):
    """Return what is recorded of one wheel."""
    with zipfile.ZipFile(wheel) as archive:
        sources = {n: archive.read(n) for n in archive.namelist() if n.endswith(".py")}
        (metadata,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        requires = message_from_bytes(archive.read(metadata)).get_all("Requires-Dist", [])
    modules = ("_compile", "ts/_compiler", "_Input", "_Device")
    body = {name: ast.parse(sources[f"torch_tensorrt/{name}.py"]).body for name in modules}
    result = {
        "compile": signature(find(body["_compile"], ast.FunctionDef, "compile")),
        "has_feature_flag": any(b"ENABLED_FEATURES.torchscript_frontend" in source for source in sources.values()),
        "requires": [r for r in requires if re.match(r"(torch|tensorrt[\w.-]*)(?![\w.-])", r)],
    }
    for name in ("compile", "embed_engine_in_new_module"):
        result[f"ts.{name}"] = signature(find(body["ts/_compiler"], ast.FunctionDef, name))
    for name in ("Input", "Device"):
        init = find(find(body[f"_{name}"], ast.ClassDef, name).body, ast.FunctionDef, "__init__")
        result[name] = {**signature(init), "keywords": keywords(init)}
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where to write the JSON")
    output = parser.parse_args().output
    recorded = {}
    for version in VERSIONS:
        with tempfile.TemporaryDirectory() as folder:
            recorded[version] = record(download(version, folder))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
