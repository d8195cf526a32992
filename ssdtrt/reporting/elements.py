"""HTML elements whose texts and attributes are escaped, whatever they come from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree

Content = ElementTree.Element | str | None


def element(tag: str, *contents: Content, **attributes: str) -> ElementTree.Element:
    """Return an element.

    Args:
        tag: Its name.
        *contents: Elements and texts; None is left out.
        **attributes: Its attributes, with `_` for `-`, and `class_` for `class`.
    """
    named = {name.rstrip("_").replace("_", "-"): printable(value) for name, value in attributes.items()}
    made = ElementTree.Element(tag, {name.replace("viewbox", "viewBox"): value for name, value in named.items()})
    append(made, *contents)
    return made


def append(parent: ElementTree.Element, *contents: Content) -> None:
    """Append elements and texts to an element."""
    for content in contents:
        if isinstance(content, ElementTree.Element):
            parent.append(content)
        elif content is not None and len(parent):
            parent[-1].tail = (parent[-1].tail or "") + printable(content)
        elif content is not None:
            parent.text = (parent.text or "") + printable(content)


def printable(text: str) -> str:
    """Return a text in which characters that a browser must not get are escapes, such as those that turn the line."""
    return "".join(one if one.isprintable() else " " if one.isspace() else ascii(one)[1:-1] for one in text)


def document(title: str, style: str, *body: Content) -> str:
    """Return a whole page in English; `style` is CSS and is not escaped."""
    css = ElementTree.Element("style")
    css.text = style
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        css,
    )
    root = element("html", head, element("body", *body), lang="en")
    return "<!DOCTYPE html>\n" + ElementTree.tostring(root, encoding="unicode", method="html") + "\n"


def table(
    caption: str, header: Sequence[str], rows: Iterable[Sequence[Content]], *, texts: int = 1
) -> ElementTree.Element:
    """Return a table that scrolls by itself where it is too wide.

    Args:
        caption: What it holds.
        header: The names of its columns.
        rows: As many cells each; the first names the row.
        texts: How many of the first columns are aligned left.
    """
    body = element("tbody")
    for row in rows:
        cells = [element("th", row[0], scope="row")]
        cells += [_cell("td", cell, at, texts) for at, cell in enumerate(row[1:], 1)]
        body.append(element("tr", *cells))
    names = [_cell("th", name, at, texts, scope="col") for at, name in enumerate(header)]
    whole = element("table", element("caption", caption), element("thead", element("tr", *names)), body)
    return element("div", whole, class_="scroll", role="region", tabindex="0", aria_label=caption)


def _cell(tag: str, content: Content, at: int, texts: int, **attributes: str) -> ElementTree.Element:
    return element(tag, content, **attributes, **({} if at < texts else {"class_": "number"}))


def facts(rows: Iterable[tuple[str, Content]]) -> ElementTree.Element:
    """Return a list of names and values."""
    return element("dl", *(element("div", element("dt", name), element("dd", value)) for name, value in rows))


def bullets(items: Iterable[Content], class_: str) -> ElementTree.Element | None:
    """Return a list of its items; None if there are none."""
    made = [element("li", item) for item in items]
    return element("ul", *made, class_=class_) if made else None


def section(title: str, *contents: Content) -> ElementTree.Element:
    """Return a section with its heading."""
    name = re.sub(r"\W+", "-", title.lower())
    return element("section", element("h2", title, id=name), *contents, aria_labelledby=name)
