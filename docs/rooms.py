"""Draws which room imports which, from the sources: python docs/rooms.py > docs/rooms.svg"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from measures import House  # noqa: E402

GROUND = ("errors", "spec", "annealing", "information", "checkpoint", "runtime")
"""What every room may stand on: drawn as one, without arrows."""
WIDTH, HEIGHT, GAP, STEP, LANE = 104, 30, 18, 74, 12
"""Pixels of a room, between two, from one row to the next, and of an arrow that passes through a row."""
STYLE = """
  rect { fill: #2f6690; } .ground { fill: #66707c; }
  text { fill: #ffffff; font: 13px system-ui, sans-serif; text-anchor: middle; dominant-baseline: central; }
  path { fill: none; stroke: #8b95a1; stroke-width: 1.4; }
"""

Graph = dict[str, set[str]]


def reached(graph: Graph, start: str) -> set[str]:
    """Every room below one."""
    return set().union(*({below} | reached(graph, below) for below in graph[start]))


def imports() -> Graph:
    """The rooms that each room imports, those of its functions included where that closes no circle."""
    modules = House(ROOT / "src" / "tightbound").modules
    rooms = {name.split(".")[0] for name in modules} - {"", "__main__", *GROUND}
    found = [(name.split(".")[0], each) for name, module in modules.items() for each in module.imports(modules)]
    graph: Graph = {room: set() for room in rooms}
    for deferred in (False, True):
        for room, each in found:
            for target in {target.split(".")[0] for target in each.targets}:
                wanted = not each.typing and each.deferred == deferred and {room, target} <= rooms and room != target
                if wanted and not (deferred and room in reached(graph, target)):
                    graph[room].add(target)
    return graph


def reduced(graph: Graph) -> Graph:
    """The graph without the arrows that follow from others."""
    through = {room: set().union(*(reached(graph, below) for below in graph[room])) for room in graph}
    return {room: graph[room] - through[room] for room in graph}


def heights(graph: Graph) -> dict[str, int]:
    """How many rooms lie below each, one on the other."""
    found: dict[str, int] = {}

    def height(room: str) -> int:
        if room not in found:
            found[room] = 1 + max(map(height, graph[room]), default=-1)
        return found[room]

    for room in sorted(graph):
        height(room)
    return found


def rows(graph: Graph) -> tuple[list[list[str]], list[list[str]]]:
    """The rows from the bottom up, each with lanes for the arrows that pass through it; and every arrow's stations."""
    level, arrows = heights(graph), list[list[str]]()
    found: list[list[str]] = [[] for _ in range(max(level.values()) + 1)]
    for room in sorted(graph):
        found[level[room]].append(room)
        for target in sorted(graph[room]):
            lanes = [f"{room}>{target}>{i}" for i in range(level[room] - 1, level[target], -1)]
            for i, lane in zip(range(level[room] - 1, level[target], -1), lanes, strict=True):
                found[i].append(lane)
            arrows.append([room, *lanes, target])
    return found, arrows


def placed(found: list[list[str]], arrows: list[list[str]]) -> dict[str, float]:
    """The middle of everything in its row, near the middle of what it is tied to: sweeps up and down, kept in order."""
    pairs = [(a, b) for stations in arrows for a, b in pairwise(stations)]
    tied: dict[str, list[str]] = {each: [] for row in found for each in row}
    for a, b in pairs:
        tied[a].append(b)
        tied[b].append(a)
    middle = {each: float(i) * WIDTH for row in found for i, each in enumerate(row)}
    for sweep in range(60):
        for row in found if sweep % 2 else found[::-1]:
            wanted = {each: sum(middle[t] for t in tied[each]) / max(1, len(tied[each])) for each in row}
            row.sort(key=lambda each: (wanted[each], each))
            middle |= spread(row, wanted)
    least = min(middle[each] - width(each) / 2 for each in middle)
    return {each: x - least + GAP for each, x in middle.items()}


def spread(row: list[str], wanted: dict[str, float]) -> dict[str, float]:
    """Places in the order of a row, as near to those that are wanted as their widths allow."""
    groups: list[tuple[list[str], float]] = []  # members, and where the first would lie
    for each in row:
        group, start = [each], wanted[each]
        while groups and groups[-1][1] + span([*groups[-1][0], group[0]]) > start:
            before, first = groups.pop()
            offset = span([*before, group[0]])
            start = (first * len(before) + (start - offset) * len(group)) / (len(before) + len(group))
            group = [*before, *group]
        groups.append((group, start))
    return {each: start + span(group[: i + 1]) for group, start in groups for i, each in enumerate(group)}


def span(row: list[str]) -> float:
    """From the middle of the first to the middle of the last."""
    return sum((width(a) + width(b)) / 2 + GAP for a, b in pairwise(row))


def width(each: str) -> int:
    return LANE if ">" in each else WIDTH


def picture() -> str:
    """The picture."""
    graph = reduced(imports())
    found, arrows = rows(graph)
    middle, top = placed(found, arrows), {each: i for i, row in enumerate(found[::-1]) for each in row}
    right = max(x + width(each) / 2 for each, x in middle.items()) + GAP
    y = {each: GAP + STEP * top[each] for each in middle}
    lines = [_arrow([(middle[s], y[s], ">" in s) for s in stations]) for stations in arrows]
    lines += [_box(middle[room] - WIDTH / 2, y[room], WIDTH, room) for room in sorted(graph)]
    ground = GAP + STEP * len(found)
    lines.append(_box(GAP, ground, right - 2 * GAP, " · ".join(GROUND), "ground"))
    size = f"{right:.0f} {ground + HEIGHT + GAP}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" role="img">'
    return "\n".join([head, f"<title>The rooms and what they import</title><style>{STYLE}</style>", *lines, "</svg>"])


def _arrow(stations: list[tuple[float, float, bool]]) -> str:
    """From the bottom of a room, through the lanes, to the top of another."""
    (x, y, _), *rest = stations
    path = [f"M{x:.0f},{y + HEIGHT}"]
    at = x, y + HEIGHT
    for x, y, lane in rest:
        half = (at[1] + y) / 2
        path.append(f"C{at[0]:.0f},{half:.0f} {x:.0f},{half:.0f} {x:.0f},{y}")
        if lane:
            path.append(f"V{y + HEIGHT}")
        at = x, y + HEIGHT
    return f'<path d="{" ".join(path)}"/>'


def _box(x: float, y: float, wide: float, text: str, kind: str = "room") -> str:
    rect = f'<rect class="{kind}" x="{x:.0f}" y="{y}" width="{wide:.0f}" height="{HEIGHT}" rx="6"/>'
    return f'{rect}<text x="{x + wide / 2:.0f}" y="{y + HEIGHT / 2:.0f}">{text}</text>'


if __name__ == "__main__":
    print(picture())
