"""SVG inlined in a page: in its font and colours, without scripts or external references."""

from __future__ import annotations

import hashlib
import html
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

__all__ = ["inlined", "title"]

_TAGS = {"svg", "g", "defs", "path", "use", "clipPath", "rect", "text", "tspan"}
_ATTRIBUTES = {"d", "x", "y", "width", "height", "transform", "viewBox", "style"}
_COLORS = {"#333333": "currentColor", "#000000": "currentColor", "#808080": "var(--soft)", "#b8b8b8": "var(--pale)"}
_COLORS["#ffffff"] = "none"
"""Colours of a figure (ink, soft ink, pale, background), and their replacements in a page."""
_REFERENCE = re.compile(r"url\(#(\w+)\)|#(\w+)")


def inlined(svg: bytes) -> str:
    """An SVG from matplotlib as an element of a page, with text as text and unique ids.

    Args:
        svg: A file written by matplotlib.

    Example:
        >>> inlined(b'<svg viewBox="0 0 1 1"><text style="fill: #333333; font-family: X">&lt;</text></svg>')
        '<svg viewBox="0 0 1 1" class="plot"><text style="fill: currentColor">&lt;</text></svg>'
    """
    root = ET.fromstring(svg)
    used = {one or other for node in root.iter() for one, other in _references(node)}
    prefix = f"f{hashlib.blake2s(svg, digest_size=4).hexdigest()}-"
    root.attrib = {"viewBox": root.attrib["viewBox"]}
    return "".join(_written(root, {name: f"{prefix}{i}" for i, name in enumerate(sorted(used))}))


def title(svg: str, text: str) -> str:
    """The SVG with a text alternative.

    Example:
        >>> title('<svg class="plot"></svg>', "a < b")
        '<svg role="img" class="plot"><title>a &lt; b</title></svg>'
    """
    head, end, body = svg.removeprefix("<svg").partition(">")
    return f'<svg role="img"{head}{end}<title>{html.escape(text)}</title>{body}'


def _references(node: ET.Element) -> Iterator[tuple[str, str]]:
    for name, value in node.attrib.items():
        if _local(name) in ("href", "clip-path"):
            yield from _REFERENCE.findall(value)


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _written(node: ET.Element, names: dict[str, str]) -> Iterator[str]:
    tag = _local(node.tag)
    if tag not in _TAGS or (tag == "path" and "opacity: 0" in node.attrib.get("style", "").split("; ")):
        return
    given = "".join(f' {name}="{html.escape(value)}"' for name, value in _attributes(node, names))
    inner = "".join(part for child in node for part in _written(child, names))
    text = html.escape(node.text or "", quote=False) if tag in ("text", "tspan") else ""
    if inner or text or tag not in ("g", "defs"):
        mark = ' class="plot"' if tag == "svg" else ""
        yield f"<{tag}{given}{mark}" + (f">{text}{inner}</{tag}>" if text or inner else "/>")


def _attributes(node: ET.Element, names: dict[str, str]) -> Iterator[tuple[str, str]]:
    for qualified, value in node.attrib.items():
        name = _local(qualified)
        if name == "id" and value in names:
            yield name, names[value]
        elif name == "href" and value[1:] in names:
            yield name, f"#{names[value[1:]]}"
        elif name == "clip-path" and value[5:-1] in names:
            yield name, f"url(#{names[value[5:-1]]})"
        elif name == "style":
            yield name, _style(value)
        elif name in _ATTRIBUTES:
            yield name, _short(value)


def _style(value: str) -> str:
    parts = [part for part in value.split("; ") if not part.startswith("font-family")]
    for name, color in _COLORS.items():
        parts = [part.replace(name, color) for part in parts]
    return "; ".join(parts)


def _short(value: str) -> str:
    """Coordinates to a hundredth, on one line."""
    rounded = re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), value)
    return " ".join(rounded.split())
