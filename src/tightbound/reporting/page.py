"""HTML in small pieces: every function takes text or finished HTML, as its arguments say, and returns HTML."""

from __future__ import annotations

import base64
import hashlib
import html
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, features

from .inline import title
from .sheet import opaque

__all__ = [
    "box",
    "code",
    "escape",
    "figure",
    "legend",
    "page",
    "paragraph",
    "picture",
    "plot",
    "section",
    "strips",
    "table",
    "tag",
    "tiles",
    "wide",
]


def escape(text: object) -> str:
    """Text as HTML that shows it and nothing else.

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
        **attributes: Texts; a trailing underscore is dropped, an attribute that is None left out.

    Example:
        >>> tag("p", "x &lt; y", class_='"soft"')
        '<p class="&quot;soft&quot;">x &lt; y</p>'
    """
    given = {key.rstrip("_"): value for key, value in attributes.items() if value is not None}
    words = [name, *(f'{key}="{escape(value)}"' for key, value in given.items())]
    closing = "" if name == "img" else f"{''.join(content)}</{name}>"
    return f"<{' '.join(words)}>{closing}"


def paragraph(text: str, class_: str | None = None) -> str:
    """A paragraph of text."""
    return tag("p", escape(text), class_=class_)


def section(title: str, *content: str) -> str:
    """HTML under a heading, which the page's navigation finds."""
    return tag("section", tag("h2", escape(title)), *content, id=anchor(title))


def anchor(title: str) -> str:
    """The name of a section in the page's address."""
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())


def box(title: str, lines: Sequence[str], kind: str = "warning") -> str:
    """Texts that must not be overlooked, ``"warning"``, or should not, ``"note"``."""
    head = tag("p", tag("strong", escape(title)))
    return tag("div", head, *map(paragraph, lines), class_=kind, role="note")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int = 0, model: int | None = None) -> str:
    """A table of texts.

    Args:
        head: Titles of the columns.
        rows: Texts of the cells.
        numbers: How many columns after the first hold numbers.
        model: A row that stands out.
    """

    def cells(kind: str, row: Sequence[str]) -> str:
        classes = ["number" if 1 <= i <= numbers else None for i in range(len(row))]
        return "".join(tag(kind, escape(text), class_=c) for text, c in zip(row, classes, strict=True))

    lines = [tag("tr", cells("td", row), class_="model" if i == model else None) for i, row in enumerate(rows)]
    return wide(tag("table", tag("thead", tag("tr", cells("th", head))), tag("tbody", *lines)))


def code(text: str) -> str:
    """Lines to be copied."""
    return tag("pre", tag("code", escape(text)))


def plot(svg: str, alt: str) -> str:
    """A figure of :mod:`~tightbound.reporting.figures`, a part of the page, and the same in words."""
    return title(svg, alt)


def picture(image: Image.Image, alt: str, *, lossy: bool = False) -> str:
    """Pixels, embedded: exact as PNG, or a fraction of that as WebP, or as JPEG where Pillow has none.

    Args:
        image: What to show, with transparency.
        alt: The same in words.
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
    """HTML that keeps a width at which it can be read, and scrolls where that does not fit."""
    return tag("div", content, class_="scroll")


def tiles(*parts: str) -> str:
    """HTML side by side where there is room."""
    return tag("div", *parts, class_="tiles")


def strips(rows: Sequence[tuple[str, str]]) -> str:
    """Titles (text) and images (HTML), one row each."""
    return tag("div", *(tag("span", escape(title)) + image for title, image in rows), class_="strips")


def legend(entries: Sequence[tuple[str, str, str]]) -> str:
    """What colours mean: colour, mark and text of each."""
    return tag(
        "ul",
        *(
            tag("li", tag("span", escape(mark), style=f"color:{color}"), " ", escape(text))
            for color, mark, text in entries
        ),
        class_="legend",
    )


def page(title: str, head: str, sections: Sequence[tuple[str, str]]) -> str:
    """A whole page.

    Args:
        title: Its title, text.
        head: HTML above all sections.
        sections: Title (text) and content (HTML) of each.
    """
    style, script = (
        f"{_file('style.css')}{_file('figures.css')}",
        "\n".join(map(str.strip, _file("map.js").splitlines())),
    )
    links = [tag("a", escape(name), href=f"#{anchor(name)}") for name, _ in sections]
    body = [tag("header", head), tag("nav", *links), tag("main", *(section(*s) for s in sections))]
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    top = tag("head", meta, _policy(script), tag("title", escape(title)), f"<style>\n{style}</style>")
    body.append(f"<script>{script}</script>")
    return "<!DOCTYPE html>\n" + tag("html", top, tag("body", *body), lang="en") + "\n"


def _file(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf8")


def _policy(script: str) -> str:
    """That a browser shall fetch nothing and run this one script."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    allowed = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return f'<meta http-equiv="Content-Security-Policy" content="{allowed}">'
