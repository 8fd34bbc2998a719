"""Damage done to files on purpose, the same for the same seed: bytes, lengths, numbers, names and structure."""

from __future__ import annotations

import gzip
import io
import json
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

__all__ = ["KINDS", "mutated"]

Mutation = Callable[[Random, bytes], bytes]

NUMBERS = ["-1", "0", "1e999", "NaN", "-Infinity", "1e9", "1000000000", "9" * 30, "9" * 5000, "1e-400", "-0.0", "0.5"]
VALUES = [*NUMBERS, "null", "true", '""', '"\\ud800"', '"a\\u0000b"', "[]", "{}", '"' + "x" * 70000 + '"', "[[[1]]]"]
NESTED = "[" * 100_000 + "]" * 100_000
LENGTHS = [0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]
NAMES = [
    "../../up.png",
    "/absolute.png",
    "a/" * 200 + "deep.png",
    "\udcff.png",
    "x" * 250 + ".png",
    "",
    ".",
    "con",
    "a\nb",
]
DTYPES = ["|O", "<f8", ">i4", "|V0", "<U1000000000", "<m8[s]", "|b1", "<c16", "zz", "<f2"]
SHAPES = ["(1000000000000,)", "(-1, 8)", "()", "(0, 8)", "(1000000000, 1000000000)", "(" + "9" * 5000 + ",)", "'a'"]


def mutated(kind: str, content: bytes, seed: object) -> bytes:
    """A file with one to three kinds of damage that suit its kind."""
    random = Random(repr(seed))
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        mutation = random.choice([*KINDS.get(kind, ()), *KINDS.get(kind, ()), *BYTES])
        try:
            content = mutation(random, content)
        except (
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            struct.error,
            zlib.error,
            OSError,
            EOFError,
            RecursionError,
            zipfile.BadZipFile,
            tarfile.TarError,
        ):
            content = _flip(random, content)  # damaged already, so that its structure cannot be read
    return content


# -- bytes ------------------------------------------------------------------------------------------------------------


def _place(random: Random, content: bytes) -> int:
    """Anywhere, but half of the time in the head, where the meaning is."""
    return random.randrange(max(1, min(len(content), random.choice([64, 512, len(content), len(content)]))))


def _flip(random: Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice([1, 2, 8, 64])):
        if changed:
            changed[_place(random, content)] ^= random.choice([1, 0x80, 0xFF, random.randrange(1, 256)])
    return bytes(changed)


def _cut(random: Random, content: bytes) -> bytes:
    return content[: random.choice([0, 1, _place(random, content), len(content) - 1, len(content) // 2])]


def _drop(random: Random, content: bytes) -> bytes:
    start = _place(random, content)
    return content[:start] + content[start + random.choice([1, 4, 64, 4096]) :]


def _splice(random: Random, content: bytes) -> bytes:
    start, other = _place(random, content), _place(random, content)
    return content[:start] + content[other : other + random.choice([1, 16, 1024])] + content[start:]


def _zero(random: Random, content: bytes) -> bytes:
    start, size = _place(random, content), random.choice([1, 8, 256])
    return content[:start] + bytes(len(content[start : start + size])) + content[start + size :]


def _length(random: Random, content: bytes) -> bytes:
    """A number of two, four or eight bytes somewhere in the file becomes an extreme one."""
    start, size = _place(random, content), random.choice([2, 4, 8])
    number = random.choice(LENGTHS) & ((1 << 8 * size) - 1)
    return content[:start] + number.to_bytes(size, random.choice(["little", "big"])) + content[start + size :]


def _other(random: Random, content: bytes) -> bytes:
    html = b"<!DOCTYPE html><html><body>404</body></html>"
    return random.choice([b"", html, b"\x80\x04}.", b"PK\x03\x04", b"\xff" * 100, bytes(1000), content * 2])


BYTES: Sequence[Mutation] = (_flip, _flip, _cut, _drop, _splice, _zero, _length, _other)


# -- text and JSON ----------------------------------------------------------------------------------------------------


def _number(random: Random, content: bytes) -> bytes:
    """One number of a text becomes another."""
    places = [match.span() for match in re.finditer(rb"\d+(\.\d+)?", content)]
    start, end = random.choice(places)
    return content[:start] + random.choice(NUMBERS).encode() + content[end:]


def _odd_text(random: Random, content: bytes) -> bytes:
    start = _place(random, content)
    odd = random.choice([b"\xff\xfe", b"\x00", b"\r", b'"', b",", b"\xed\xa0\x80", "\u2028".encode(), b"nan", b"-" * 9])
    return content[:start] + odd + content[start:]


class _Raw(str):
    """Text that stands for itself in the JSON that is written."""


def _json(random: Random, content: bytes) -> bytes:
    value = json.loads(content)
    raw: dict[str, str] = {}

    def odd() -> str:
        key = f"@@{len(raw)}@@"
        raw[key] = random.choice([*VALUES, *VALUES, NESTED])
        return key

    for _ in range(random.choice([1, 1, 2, 4])):
        value = _changed_json(random, value, odd)
    text = json.dumps(value)
    for key, put in raw.items():
        text = text.replace(f'"{key}"', put)
    return text.encode("utf8", "surrogatepass")


def _changed_json(random: Random, value: Any, odd: Callable[[], str]) -> Any:
    """One entry somewhere below replaced, removed, renamed, doubled or added."""
    holders: list[Any] = []

    def visit(node: Any) -> None:
        if isinstance(node, dict | list) and node:
            holders.append(node)
        for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            visit(item)

    visit(value)
    if not holders or random.random() < 0.02:
        return odd()
    node = random.choice(holders)
    key = random.choice(list(node)) if isinstance(node, dict) else random.randrange(len(node))
    act = random.choice(["replace", "replace", "replace", "remove", "rename", "add", "double"])
    if act == "remove":
        del node[key]
    elif act == "rename" and isinstance(node, dict):
        node[random.choice([f"{key}x", "", "value", "kind", "__class__"])] = node.pop(key)
    elif act == "add" and isinstance(node, dict):
        node[random.choice(["extra", "n", "value"])] = odd()
    elif act == "double" and isinstance(node, list):
        node.extend(node)
    else:
        node[key] = odd()
    return value


def _json_line(random: Random, content: bytes) -> bytes:
    lines = content.splitlines()
    number = random.randrange(len(lines))
    lines[number] = _json(random, lines[number])
    return b"\n".join(lines) + b"\n"


def _line(random: Random, content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    number = random.randrange(len(lines))
    lines[number : number + 1] = random.choice(
        [[], [lines[number]] * 2, [b"\n"], [lines[number].strip()], [NESTED.encode() + b"\n"]]
    )
    return b"".join(lines)


# -- tensors and arrays -----------------------------------------------------------------------------------------------


def _tensor_header(random: Random, content: bytes) -> bytes:
    """The JSON in front of the tensors."""
    size = int.from_bytes(content[:8], "little")
    header = _json(random, content[8 : 8 + size])
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def _tensor_tree(random: Random, content: bytes) -> bytes:
    """The JSON in that JSON, which tells what the tensors are."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    metadata = header["__metadata__"]
    key = random.choice(sorted(metadata))
    metadata[key] = _json(random, metadata[key].encode()).decode("utf8", "replace")
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def _tensor_values(random: Random, content: bytes) -> bytes:
    start = 8 + int.from_bytes(content[:8], "little")
    return content[:start] + _flip(random, content[start:])


def _tensor_shape(random: Random, content: bytes) -> bytes:
    """A shape that its bytes can hold too: turned, flattened, or of another type."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    entry = header[random.choice(sorted(set(header) - {"__metadata__"}))]
    act = random.choice(["turn", "flat", "type", "none"])
    if act == "turn":
        entry["shape"] = entry["shape"][::-1]
    elif act == "flat":
        entry["shape"] = [1, *entry["shape"]]
    elif act == "type":
        entry["dtype"] = {"F32": "I32", "I64": "F64", "F64": "I64", "U8": "BOOL"}.get(entry["dtype"], "U8")
    else:
        entry["shape"], entry["data_offsets"] = [0], [0, 0]
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def _npy_head(random: Random, content: bytes) -> bytes:
    size = int.from_bytes(content[8:10], "little")
    head = content[10 : 10 + size].decode("latin1")
    act = random.choice(["shape", "shape", "descr", "order", "text"])
    if act == "shape":
        head = re.sub(r"'shape': \([^)]*\)", f"'shape': {random.choice(SHAPES)}", head)
    elif act == "descr":
        head = re.sub(r"'descr': '[^']*'", f"'descr': '{random.choice(DTYPES)}'", head)
    elif act == "order":
        head = head.replace("False", random.choice(["True", "None", "7"]))
    else:
        head = random.choice(
            [
                "{" * 5000,
                "(" * 20000,
                "{'descr': [('a', '<f8')] * 9}",
                "__import__('os')",
                head[:20],
                head.replace("'", '"'),
            ]
        )
    told = head.encode("latin1")
    return content[:8] + (len(told) & 0xFFFF).to_bytes(2, "little") + told + content[10 + size :]


# -- pictures ---------------------------------------------------------------------------------------------------------


def _png_chunk(random: Random, content: bytes) -> bytes:
    """A field of one chunk, with its checksum made right again."""
    place, chunks = 8, list[tuple[int, int]]()
    while place + 12 <= len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        chunks.append((place, size))
        place += 12 + size
    start, size = random.choice([chunks[0], *chunks])
    kind, body = content[start + 4 : start + 8], bytearray(content[start + 8 : start + 8 + size])
    if body and random.random() < 0.5:
        at = random.randrange(0, max(1, len(body) - 3), 1)
        body[at : at + 4] = random.choice(LENGTHS[:7]).to_bytes(4, "big")
    elif body:
        body[random.randrange(len(body))] = random.randrange(256)
    whole = kind + bytes(body)
    return (
        content[:start]
        + len(body).to_bytes(4, "big")
        + whole
        + zlib.crc32(whole).to_bytes(4, "big")
        + content[start + 12 + size :]
    )


# -- archives ---------------------------------------------------------------------------------------------------------


def _gzip(inner: Sequence[Mutation]) -> Mutation:
    def mutate(random: Random, content: bytes) -> bytes:
        return gzip.compress(random.choice(inner)(random, gzip.decompress(content)), mtime=0)

    return mutate


def _zip(inner: Callable[[str], Sequence[Mutation]]) -> Mutation:
    """One member changed or renamed, in a sound archive."""

    def mutate(random: Random, content: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
        number = random.randrange(len(members))
        name, held = members[number]
        if random.random() < 0.7:
            members[number] = name, random.choice([*inner(name), *inner(name), *BYTES])(random, held)
        else:
            members[number] = random.choice([*NAMES, name + "/", members[0][0], "README.txt"]), held
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, held in members:
                archive.writestr(zipfile.ZipInfo(name.encode("utf8", "replace").decode()), held)
        return file.getvalue()

    return mutate


def _tar_head(random: Random, content: bytes) -> bytes:
    """A field of one member's head, with its checksum made right again."""
    heads = [place for place in range(0, len(content) - 512, 512) if content[place + 257 : place + 262] == b"ustar"]
    place = random.choice(heads)
    head = bytearray(content[place : place + 512])
    act = random.choice(["size", "size", "kind", "name"])
    if act == "size":
        head[124:136] = random.choice(
            [
                b"77777777777\0",
                b"00000000000\0",
                b"-0000000001\0",
                b"\x80" + b"\xff" * 11,
                b"\xff" * 12,
                b"99999999999\0",
            ]
        )
    elif act == "kind":
        head[156:157] = random.choice([b"L", b"K", b"x", b"g", b"S", b"1", b"2", b"3", b"4", b"5", b"6", b"V", b"\0"])
    else:
        head[0:100] = random.choice(NAMES).encode("utf8", "surrogateescape")[:100].ljust(100, b"\0")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return content[:place] + bytes(head) + content[place + 512 :]


def _of_member(name: str) -> Sequence[Mutation]:
    suffix = name.rpartition(".")[2]
    return {"png": (_png_chunk,), "npy": (_npy_head,), "jsonl": (_json_line, _line), "csv": (_number, _odd_text)}.get(
        suffix, BYTES
    )


KINDS: dict[str, Sequence[Mutation]] = {
    "bytes": (),
    "json": (_json, _json, _number),
    "jsonl": (_json_line, _json_line, _line, _odd_text),
    "text": (_number, _odd_text, _line),
    "safetensors": (_tensor_header, _tensor_tree, _tensor_tree, _tensor_values, _tensor_shape),
    "npy": (_npy_head,),
    "png": (_png_chunk,),
    "zip": (_zip(_of_member),),
    "tar": (_tar_head,),
    "tar.gz": (_gzip([_tar_head, *BYTES]),),
    "gz": (_gzip(BYTES),),
}
"""By kind of file, the damage that keeps its frame sound, so that what lies deeper is reached."""
