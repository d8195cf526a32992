"""The house: imports go one way, folders and modules stay small, and nothing private is used from outside."""

import ast
from pathlib import Path

import pytest

import ssdtrt

PACKAGE = Path(ssdtrt.__file__).parent
# Each row may import the rows above it; names of one row do not import each other. A folder stands for all in it.
ORDER = (
    ("__init__", "config", "errors"),
    ("system",),
    ("images", "formats"),
    ("reading", "model"),
    ("artifact",),
    ("runners",),
    ("rewriting",),
    ("engine", "detection", "hub"),
    ("exporting", "sinks"),
    ("evaluation", "video"),
    ("quantization",),
    ("export", "compile", "verify", "detect"),
    ("evaluate",),
    ("benchmarking",),
    ("reporting",),
    ("bench", "profile", "report"),
    ("diagnosis",),
    ("doctor", "run", "clusters"),
    ("serving",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
ROW = {name: number for number, row in enumerate(ORDER) for name in row}
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST_MODULE, LONGEST_FUNCTION = 300, 50
# What is longer, and why.
LONG_FUNCTIONS: dict[str, str] = {}
LONG_MODULES: dict[str, str] = {}


def place(path):
    """The name of a module's front door or folder."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree):
    """The modules of this package that a module imports, lazily or not, below `ssdtrt`; "" stands for the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name[7:] for name in node.names if name.name.split(".")[0] == "ssdtrt")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ssdtrt":
            assert node.level == 0
            below = node.module[7:]
            if below:
                yield below
            else:
                yield from (name.name if (PACKAGE / name.name).exists() or (PACKAGE / f"{name.name}.py").exists() else ""
                            for name in node.names)  # fmt: skip


def wrong_imports(source, importer):
    """What a module of this place imports against the order."""
    found = []
    for name in imports(ast.parse(source)):
        imported = name.split(".")[0] or "__init__"
        if imported != importer and ROW[imported] >= ROW[importer]:
            found.append(name)
    return found


def test_every_module_has_its_place():
    assert {place(path) for path in MODULES} == set(ROW)


@pytest.mark.parametrize("path", [path for path in MODULES if path != PACKAGE / "__init__.py"],
                         ids=lambda path: str(path.relative_to(PACKAGE)))  # fmt: skip
def test_imports_go_one_way(path):
    assert wrong_imports(path.read_text(encoding="utf-8"), place(path)) == []


def test_an_import_against_the_order_is_seen():
    assert wrong_imports("from ssdtrt.cli import main", "engine") == ["cli"]
    assert wrong_imports("def f():\n    from ssdtrt.detection import results", "engine") == ["detection"]
    assert wrong_imports("import ssdtrt.bench", "system") == ["bench"]
    assert wrong_imports("from ssdtrt import bench, config", "system") == ["bench"]
    assert wrong_imports("from ssdtrt import __version__\nfrom ssdtrt.engine.build import Built", "engine") == []


def test_the_public_names_are_the_only_lazy_ones():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    assert {f"ssdtrt.{name}" for name in imports(tree)} == set(ssdtrt._HOMES.values())


def test_folders_hold_twelve_files_and_the_root_sixteen():
    counts = {}
    for path in MODULES:
        counts[path.parent] = counts.get(path.parent, 0) + 1
    assert {str(folder.relative_to(PACKAGE)): count for folder, count in counts.items()
            if count > (16 if folder == PACKAGE else 12)} == {}  # fmt: skip


def test_a_folders_init_holds_a_sentence_and_no_code():
    for path in PACKAGE.glob("*/__init__.py"):
        (statement,) = ast.parse(path.read_text(encoding="utf-8")).body
        assert isinstance(statement, ast.Expr), path


def test_modules_and_functions_stay_short():
    modules, functions = {}, {}
    for path in MODULES:
        name, text = str(path.relative_to(PACKAGE)), path.read_text(encoding="utf-8")
        if len(text.splitlines()) > LONGEST_MODULE:
            modules[name] = len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = node.body[1 if ast.get_docstring(node) and len(node.body) > 1 else 0].lineno
                length = node.end_lineno - first + 1 + (node.body[0].lineno - node.lineno)
                if length > LONGEST_FUNCTION:
                    functions[f"{name}:{node.name}"] = length
    assert {name: size for name, size in modules.items() if name not in LONG_MODULES} == {}
    assert {name: size for name, size in functions.items() if name not in LONG_FUNCTIONS} == {}


def test_nothing_private_is_imported_from_another_module():
    private = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ssdtrt":
                names = [name.name for name in node.names]
                private += [f"{path.name}: {name}" for name in names if name.startswith("_") and name != "__version__"]
    assert private == []


def test_every_test_stands_beside_its_module():
    """tests/FOLDER/test_X.py is of ssdtrt/FOLDER/X.py."""
    tests = Path(__file__).parent
    strays = []
    for path in tests.glob("*/test_*.py"):
        folder = path.parent.name
        if (PACKAGE / folder).is_dir() and not (PACKAGE / folder / path.name.removeprefix("test_")).exists():
            strays.append(str(path.relative_to(tests)))
    assert strays == []
