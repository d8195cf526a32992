"""The documentation as a site: `make docs` builds it from the Markdown files where they are, so that their links hold.

The source folder is the whole checkout. The README is the home page; what it links to but is no page can be downloaded.
"""

import re
import shutil
import sys
from pathlib import Path

from sphinx.util import rst
from sphinx.util.nodes import make_refnode

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import ssdtrt  # noqa: E402

project = "ssdtrt"
version = release = ssdtrt.__version__
smartquotes = False  # Commands are copied.
html_title = f"ssdtrt {release}"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
root_doc = "README"
include_patterns = [
    "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/*.md", "docs/*.rst", "benchmarks/*.md", "examples/*.md",
    "ssdtrt/samples/*.md",
]  # fmt: skip
exclude_patterns = [".*", "build", "dist", "tests"]
TOCTREE = """
```{toctree}
:hidden:
:caption: Use

Guide <docs/guide>
Troubleshooting <docs/troubleshooting>
Videos <docs/video>
Ray <docs/ray>
Service <docs/service>
Triton <docs/triton>
Deployment <docs/deployment>
docs/commands
docs/api
examples/README
```

```{toctree}
:hidden:
:caption: Look up

docs/files
Reports <docs/reports>
docs/performance
Service speed <docs/service-load>
Scale <docs/scale>
Accuracy <docs/accuracy>
INT8 <docs/int8>
INT8 layer by layer <docs/int8-floor>
Reliability <docs/reliability>
Versions <docs/versions>
```

```{toctree}
:hidden:
:caption: The project

CHANGELOG
CONTRIBUTING
benchmarks/README
ssdtrt/samples/README
```
"""
PICTURES = {"detect": "images/detections.jpg", "plot": "speed.svg"}
"""What a command writes, from docs/."""

# Markdown as GitHub reads it: headings are anchors, and <img> is a picture.
myst_heading_anchors = 4
myst_enable_extensions = ["html_image"]
highlight_language = "none"

# The docstrings' single backticks are of code.
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
# Other packages' names lead nowhere, because the site refers to no other host; nor do the parts behind the front doors.
nitpick_ignore_regex = [
    ("py:.*", r"(torch|numpy|pandas|PIL|pathlib|collections|msgspec|np|Image)\..*|Tensor"),
    ("py:.*", r"ssdtrt\.(artifact\.metadata|images\.jpeg|runners)\..*|ssdtrt\.video\.detection\.VideoDetector"),
]

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False


def add_navigation(app, docname, source):
    """Give the README the site's navigation, for which GitHub has no place."""
    if docname == root_doc:
        source[0] += TOCTREE


def find_by_last_name(app, env, node, contnode):
    """Resolve a Python name that is documented elsewhere, as `ImageError` or under the public name."""
    if node.get("refdomain") != "py":
        return None
    last = node["reftarget"].rpartition(".")[2]
    objects = env.domains.python_domain.objects
    found = {entry.node_id: entry for name, entry in objects.items() if name.rpartition(".")[2] == last}
    if len(found) != 1:
        return None
    (entry,) = found.values()
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, contnode)


def write_help(app, context, lines):
    """Show a command's help as its text stands there, which is no markup, and its example as code."""
    about, title, command = (*re.split(r"^(Example|On a GPU machine): ", "\n".join(lines), flags=re.M), "", "")[:3]
    lines[:] = [*rst.escape(about).splitlines(), "", title and f"{title}:", ""]
    if command:
        lines += [".. code-block:: sh", "", *(f"   {line.strip()}" for line in command.splitlines()), ""]
    if context.command.name in PICTURES:
        lines += [f".. image:: {PICTURES[context.command.name]}", ""]


def keep_hyphens(app, context, lines):
    """Keep the two hyphens of an option that another one's help names: they would become one dash."""
    lines[:] = [line if line.startswith("..") else line.replace("--", r"\-\-") for line in lines]


def name_functions(app, what, name, obj, options, signature, returned):
    """Show a default that is a function by its name."""
    return signature and re.sub(r"<function (\w+)>", r"\1", signature), returned


def make_index(app, exception):
    """Make the home page what a server of the folder shows."""
    if exception is None and app.builder.format == "html":
        shutil.copy(Path(app.outdir, "README.html"), Path(app.outdir, "index.html"))


def setup(app):
    """Connect the above."""
    app.connect("source-read", add_navigation)
    app.connect("missing-reference", find_by_last_name)
    app.connect("sphinx-click-process-description", write_help)
    app.connect("sphinx-click-process-options", keep_hyphens)
    app.connect("autodoc-process-signature", name_functions)
    app.connect("build-finished", make_index)
