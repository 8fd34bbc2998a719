"""HTML in small pieces: every function takes text or finished HTML, as its arguments say, and returns HTML."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, features

from . import inline
from .glossary import marked, tips
from .sheet import opaque

__all__ = [
    "Section",
    "Verbatim",
    "box",
    "code",
    "escape",
    "figure",
    "folded",
    "instructive",
    "legend",
    "page",
    "paragraph",
    "picture",
    "plot",
    "strips",
    "table",
    "tag",
    "tiles",
    "wide",
]

STYLES = ("style.css", "figures.css")
SCRIPTS = ("page.js", "map.js")
"""Files beside this one that a page holds."""


_VALUE = r"(?: (?:\d+(?:\.\d+)?(?![\d.]*[\d%])|[A-Z][A-Z\d]*\b|[a-z][\w./-]*\w(?= --)))"
"""What follows an option: numbers, a placeholder, or a word that another option follows."""
_COMMAND = rf"tightbound [a-z-]+(?: RUN\b| --[a-z][a-z-]*(?: [a-z][a-z-]*(?=\.?$)|{_VALUE}*))+|--[a-z][a-z-]*{_VALUE}*"
_TOGETHER = re.compile(r"(?<=\d) (?=±|nats\b)|(?<=±) ")
"""Spaces within a number, at which no line ends."""


class Verbatim(str):
    """Text that is a name or a command, formatted as code without glossary marks."""

    __slots__ = ()


@dataclass(frozen=True)
class Section:
    """A collapsible section of a page.

    Args:
        title: Its heading, text.
        content: HTML.
        summary: One line of text that is seen beside the heading, folded or not.
        folded: Whether it is at first.
    """

    title: str
    content: str
    summary: str = ""
    folded: bool = False


def escape(text: object) -> str:
    """Text escaped for HTML.

    Example:
        >>> escape("<b> & 'c'")
        '&lt;b&gt; &amp; &#x27;c&#x27;'
    """
    return html.escape(str(text), quote=True)


def tag(name: str, *content: str, **attributes: object) -> str:
    """An element.

    Args:
        name: Its tag.
        *content: HTML.
        **attributes: Texts; a trailing underscore is dropped, one within becomes a hyphen, an attribute that is None
            is left out.

    Example:
        >>> tag("p", "x &lt; y", class_='"soft"')
        '<p class="&quot;soft&quot;">x &lt; y</p>'
    """
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    words = [name, *(f'{key}="{escape(value)}"' for key, value in given.items())]
    closing = "" if name == "img" else f"{''.join(content)}</{name}>"
    return f"<{' '.join(words)}>{closing}"


def paragraph(text: str, class_: str | None = None) -> str:
    """A paragraph of text."""
    return tag("p", _shown(text), class_=class_)


def instructive(text: str, class_: str | None = None, command: str | None = None) -> str:
    """A paragraph of text with commands and options formatted as code.

    Args:
        text: The text.
        class_: Its class.
        command: A command in it that its form does not identify, since it names a path.

    Example:
        >>> instructive("Train longer: --steps 300.")
        '<p>Train longer: <code><span>--steps 300</span></code>.</p>'
    """
    known = [] if command is None else [re.escape(escape(command))]
    found = re.compile("|".join([*known, _COMMAND]))
    return tag("p", found.sub(lambda part: tag("code", _pieces(part[0])), _unbroken(escape(text))), class_=class_)


def _shown(text: str) -> str:
    """Text as HTML."""
    return tag("code", _pieces(escape(text))) if isinstance(text, Verbatim) else _unbroken(escape(text))


def _pieces(command: str) -> str:
    """A command whose lines break only between options, not within one."""
    return " ".join(tag("span", part) for part in re.split(r" (?=--)", command))


def _unbroken(text: str) -> str:
    return _TOGETHER.sub("\N{NO-BREAK SPACE}", text)


def _section(part: Section) -> str:
    """The place that a link leads to lies within what folds, so that browsers unfold it by themselves."""
    summary = tag("span", escape(part.summary), class_="soft") if part.summary else ""
    head = tag("summary", tag("h2", escape(part.title)), summary)
    content = tag("div", marked(part.content), id=anchor(part.title), class_="content")
    return tag("section", tag("details", head, content, open=None if part.folded else ""))


def anchor(title: str) -> str:
    """The name of a section in the page's address."""
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())


def box(title: str, lines: Sequence[str], kind: str = "warning") -> str:
    """A box of texts: ``"warning"`` or ``"note"``."""
    head = tag("p", tag("strong", escape(title)))
    return tag("div", head, *map(instructive, lines), class_=kind, role="note")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int = 0, model: int | None = None) -> str:
    """A table of texts, whose rows become cards on narrow screens.

    Args:
        head: Titles of the columns; that of the first, which names the rows, may be empty.
        rows: Texts of the cells.
        numbers: Number of columns with numbers after the first.
        model: A row that stands out.
    """
    kinds = ["number" if 1 <= i <= numbers else None for i in range(len(head))]
    titles = [tag("th", escape(text), class_=kind, scope="col") for text, kind in zip(head, kinds, strict=True)]
    lines = [_row(head, row, kinds, "model" if i == model else None) for i, row in enumerate(rows)]
    return wide(tag("table", tag("thead", tag("tr", *titles)), tag("tbody", *lines)))


def _row(head: Sequence[str], row: Sequence[str], kinds: Sequence[str | None], class_: str | None) -> str:
    """Each cell tells the title of its column, which a card has no other place for."""
    cells = [
        tag("td", _shown(text), class_=kind, data_label=title)
        for title, text, kind in zip(head[1:], row[1:], kinds[1:], strict=True)
    ]
    return tag("tr", tag("th", _shown(row[0]), scope="row"), *cells, class_=class_)


def code(text: str) -> str:
    """Lines to be copied."""
    return tag("pre", tag("code", "\n".join(map(_pieces, escape(text).split("\n")))))


def plot(svg: str, alt: str) -> str:
    """A figure of :mod:`~tightbound.reporting.figures`, a part of the page, and the same as text."""
    return inline.title(svg, alt)


def picture(image: Image.Image, alt: str, *, lossy: bool = False) -> str:
    """Pixels, embedded: exact as PNG, or a fraction of that as WebP, or as JPEG where Pillow has none.

    Args:
        image: What to show, with transparency.
        alt: The same as text.
        lossy: Whether it is of photographs, which need not be exact.
    """
    buffer, kind = io.BytesIO(), ("webp" if features.check("webp") else "jpeg") if lossy else "png"
    (opaque(image) if kind == "jpeg" else image).save(buffer, format=kind, quality=88, optimize=True)
    return _image(buffer.getvalue(), kind, alt, "pixels photo" if lossy else "pixels", width=image.width)


def _image(data: bytes, kind: str, alt: str, class_: str, width: int | None = None) -> str:
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return tag("img", src=source, alt=alt, class_=class_, width=width)


def figure(image: str, title: str) -> str:
    """An image (HTML) and its title (text)."""
    return tag("figure", image, tag("figcaption", escape(title)) if title else "")


def wide(content: str) -> str:
    """HTML with a minimum readable width, which scrolls if it does not fit."""
    return tag("div", content, class_="scroll")


def tiles(*parts: str) -> str:
    """HTML side by side if there is room."""
    return tag("div", *parts, class_="tiles")


def strips(rows: Sequence[tuple[str, str]]) -> str:
    """Titles (text) and images (HTML), one row each."""
    return tag("div", *(tag("span", escape(title)) + image for title, image in rows), class_="strips")


def legend(entries: Sequence[tuple[str, str, str]]) -> str:
    """A legend: colour, marker and text of each entry."""
    return tag(
        "ul",
        *(
            tag("li", tag("span", escape(mark), style=f"color:{color}"), " ", escape(text))
            for color, mark, text in entries
        ),
        class_="legend",
    )


def folded(title: str, content: str) -> str:
    """HTML in a collapsible block."""
    return tag("details", tag("summary", escape(title)), content, class_="more")


def page(title: str, head: str, sections: Sequence[Section]) -> str:
    """A complete page: head, table of contents, sections and glossary.

    Args:
        title: Its title, text.
        head: HTML above all sections.
        sections: What comes under headings.
    """
    links = [tag("a", escape(part.title), href=f"#{anchor(part.title)}") for part in sections]
    head = tag("header", marked(head))
    parts = [head, tag("nav", *links, aria_label="Contents"), tag("main", *map(_section, sections))]
    script = "\n".join(map(str.strip, _files(SCRIPTS).splitlines()))
    body = tag("body", *parts, tips("".join(parts)), f"<script>{script}</script>")
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    top = tag("head", meta, _policy(script), tag("title", escape(title)), f"<style>\n{_files(STYLES)}</style>")
    return "<!DOCTYPE html>\n" + tag("html", top, body, lang="en") + "\n"


def _files(names: Sequence[str]) -> str:
    return "".join(Path(__file__).with_name(name).read_text(encoding="utf8") for name in names)


def _policy(script: str) -> str:
    """A content security policy: no external resources, and no other script."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    allowed = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return f'<meta http-equiv="Content-Security-Policy" content="{allowed}">'
