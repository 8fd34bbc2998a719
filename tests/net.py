"""A net under a refactoring: trains every system for a few steps, and records every number that comes of it.

    python tests/net.py record OUT.json [--only PATTERN] [--keep FOLDER | --runs FOLDER/runs] [--verbose]
    python tests/net.py compare BEFORE.json AFTER.json [--only PATTERN] [--words]

Everything is asked for through the command line, in this process, so that the net catches any version of the code that
``PYTHONPATH`` names. Two recordings of one tree on one machine are equal bit for bit; between machines they are not.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib
import io
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import chdir, nullcontext, redirect_stderr, redirect_stdout
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import tightbound
from net_combinations import JUDGE, NET, READ, SPELLINGS

Figures = dict[str, Any]


def write_data(folder: Path) -> None:
    """The data that the combinations learn from: handwritten digits in several clothes, and vectors."""
    from sklearn.datasets import load_digits

    random = np.random.default_rng(0)
    values, labels = load_digits(return_X_y=True)
    digits, labels = values.reshape(-1, 8, 8).astype(np.uint8)[:204], labels[:204]
    cuts = {"train": slice(0, 160), "valid": slice(160, 180), "test": slice(180, 204)}
    names = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])

    def split(**arrays: Any) -> dict[str, Any]:
        return {f"{name}_{part}": array[cut] for name, array in arrays.items() for part, cut in cuts.items()}

    np.savez(folder / "digits.npz", **split(x=digits, y=labels), levels=17, classes=names)
    vectors = (random.normal(size=(204, 2)) @ random.normal(size=(2, 5)) + random.normal(size=(204, 5)) * 0.3).astype(
        "f4"
    )
    np.savez(folder / "vectors.npz", **split(x=vectors))
    conditions = np.concatenate([vectors[:, :2], digits.mean((1, 2))[:, None] / 16], 1).astype("f4")
    conditions[::7, 1] = math.nan
    np.savez(folder / "given.npz", **split(x=digits, c=conditions), levels=17)
    halves = (digits[:, None, :, :] / 16).astype("f4")
    halves[:, :, :, 4:] = math.nan
    np.savez(folder / "halves.npz", **split(x=digits, c=halves), levels=17)
    _write_photos(folder / "photos", digits[:90], names[labels[:90]])
    rows = [",".join([*(f"{v:.4f}" for v in row), "ab"[int(row[0] > 0)]]) for row in vectors]
    (folder / "table.csv").write_text("\n".join(["a,b,c,d,e,kind", *rows]) + "\n")
    (folder / "captions.txt").write_text("a red seven\na blue one\na green zero\n")


def _write_photos(folder: Path, digits: Any, words: Any) -> None:
    """Coloured digits and what they are, in words."""
    folder.mkdir()
    lines = []
    for i, (digit, word) in enumerate(zip(digits, words, strict=True)):
        pixels = np.zeros((8, 8, 3), np.uint8)
        pixels[..., i % 3] = digit * 15
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
        lines.append(json.dumps({"file_name": f"{i:03}.png", "text": f"a {('red', 'green', 'blue')[i % 3]} {word}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def needed(wanted: Iterable[str], net: Mapping[str, list[str]]) -> list[str]:
    """Those combinations and the others whose runs they use, each after what it uses."""
    found: list[str] = []
    for name in wanted:
        others = [other for command in net[name] for other in re.findall(r"@([\w-]+)", command)]
        found += [each for each in [*needed(others, net), name] if each not in found]
    return found


def record(
    net: Mapping[str, list[str]] = NET,
    only: str = "*",
    *,
    keep: Path | None = None,
    runs: Path | None = None,
    verbose: bool = False,
) -> dict[str, Figures]:
    """Every figure of the combinations whose names match a pattern.

    Args:
        net: Names to commands.
        only: Which names, as a pattern of file names.
        keep: An empty folder in which to work, so that its folder ``runs`` is left, and the data of these.
        runs: A folder of run folders that are measured, copies of them, in place of the combinations.
        verbose: Whether to tell what the commands say.
    """
    net = net if runs is None else {path.parent.name: list(READ) for path in sorted(runs.glob("*/config.json"))}
    wanted = [name for name in net if fnmatch(name, only)]
    found: dict[str, Figures] = {}
    with nullcontext(keep) if keep else tempfile.TemporaryDirectory() as folder, chdir(folder):
        write_data(Path())
        if runs is not None:
            shutil.copytree(runs, "runs")
        if any("judge.safetensors" in command for name in wanted for command in net[name]):
            run(JUDGE, "judge", "judge", verbose)
        for name in needed(wanted, net):
            start = time.monotonic()
            figures = caught(name, net[name], verbose)
            print(f"{name}: {len(figures)} figures in {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
            found |= {name: figures} if name in wanted else {}
    return found


def caught(name: str, commands: list[str], verbose: bool = False) -> Figures:
    """Every figure of one combination: of its run folder, and of what each command prints and writes."""
    figures: Figures = {}
    for command in commands:
        label = _unused(command.removeprefix("torchrun ").split()[0], figures)
        code, told, out = run(command, name, label, verbose)
        figures[f"{label}.exit"] = code
        if "--json" in command and code == 0:
            figures |= flat(json.loads(told.replace(f"{Path.cwd()}/", "")), label)
        figures |= flat(read_output(out), f"{label}.out") if out is not None and out.is_file() else {}
    if (folder := Path("runs", name)).is_dir():
        figures |= flat(read_run(folder), "run")
    return {path: value for path, value in figures.items() if not LEFT_OUT.search(path)}


LEFT_OUT = re.compile(r"examples_per_second|seconds|\.version$|^info\.evaluation\.weights$")
"""Speeds and times, which are never the same twice; versions; and the digest of a file, whose tensors' names count."""


def _unused(label: str, figures: Figures) -> str:
    for number in range(1, 100):
        each = label if number == 1 else f"{label}-{number}"
        if f"{each}.exit" not in figures:
            return each
    raise ValueError(label)


def run(command: str, name: str, label: str, verbose: bool = False) -> tuple[int | str, str, Path | None]:
    """A command, in whatever spelling this version knows: how it ended, what it printed, and the file it wrote."""
    ended: int | str = 2
    told, words = "", list[str]()
    for each in dict.fromkeys(_spellings(command)):
        words = [
            re.sub(r"^@([\w-]*)$", lambda m: f"runs/{m[1] or name}", word).replace("%", f"{name}-{label}")
            for word in shlex.split(each)
        ]
        ended, told = _run_apart(words[1:]) if words[0] == "torchrun" else _run_here(words, verbose)
        if ended != 2:
            break
    out = [words[i + 1] for i, word in enumerate(words) if word == "--out"]
    return ended, told, Path(out[-1]) if out else None


def _spellings(command: str) -> Iterator[str]:
    yield command
    for pattern, replacement in SPELLINGS:
        command = re.sub(pattern, replacement, command)
        yield command


def command_line() -> Any:
    """What runs a command, in the tree that is measured: the module or the function of that name."""
    try:
        return importlib.import_module("tightbound.cli.main").main
    except ModuleNotFoundError:
        return importlib.import_module("tightbound.cli").main


def _run_here(words: list[str], verbose: bool) -> tuple[int | str, str]:
    main = command_line()

    torch.manual_seed(0)
    told, said, start = io.StringIO(), io.StringIO(), time.monotonic()
    with redirect_stdout(told), redirect_stderr(said):
        try:
            code: int | str = main(words)
        except Exception as error:  # a crash is a figure too
            code = f"crash: {type(error).__name__}"
            said.write(str(error))
    if verbose or isinstance(code, str):
        print(
            f"{shlex.join(words)} ({time.monotonic() - start:.2f} s)",
            code,
            told.getvalue()[:2000],
            said.getvalue()[-2000:],
            sep="\n",
            file=sys.stderr,
        )
    return code, told.getvalue()


def _run_apart(words: list[str]) -> tuple[int | str, str]:
    """Two processes, started as a user starts them."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    ended = subprocess.run(
        [*launcher, "-m", "tightbound", *words], capture_output=True, text=True, env=environment, check=False
    )
    return ended.returncode, ended.stdout


def read_run(folder: Path) -> Figures:
    """The weights of a run and every reading of its training."""
    found: Figures = {"files": " ".join(sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()))}
    if (path := folder / "model.safetensors").is_file():
        found["weights"] = weights(path)
    if (path := folder / "checkpoints" / "last.safetensors").is_file():
        found["last"] = weights(path, "model/")["floats"]
    if (path := folder / "evaluation.safetensors").is_file():
        found["nll_per_example"] = weights(path)["floats"]
    if drawn := sorted(folder.glob("samples/*.png")):
        found["pictures"] = {path.stem: pixels(path) for path in drawn}
    if (path := folder / "metrics.jsonl").is_file():
        found["metrics"] = readings([json.loads(line) for line in path.read_text().splitlines()])
    if (path := folder / "report.html").is_file():
        images = re.findall(r"data:image/png;base64,([\w+/=]+)", path.read_text())
        found["report"] = {"pictures": sorted(pixels(io.BytesIO(base64.b64decode(image))) for image in images)}
    return found


def readings(records: list[Figures]) -> Figures:
    """Readings of training by split and step, the last where a step was read twice."""
    return {f"{r['split']}.{r['step']}": {k: v for k, v in r.items() if k not in ("split", "step")} for r in records}


def weights(path: Path, under: str = "") -> Figures:
    """Digests of tensors: of each by its name, and of all together without their names.

    Args:
        path: A file of tensors.
        under: Only those whose names begin so.
    """
    from safetensors.torch import load_file

    tensors = {name: tensor for name, tensor in load_file(path).items() if name.startswith(under)}
    each = {name: _digest(tensor) for name, tensor in sorted(tensors.items())}
    floats = sorted(each[name] for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel())
    return {
        "by_name": {name.replace(".", "/"): digest for name, digest in each.items()},
        "values": _sha("".join(sorted(each.values())).encode()),
        "floats": _sha("".join(floats).encode()),
        "numbers": sum(tensor.numel() for tensor in tensors.values()),
    }


def read_output(path: Path) -> Figures:
    """Digests of the arrays, tensors or pixels in a file, and the means of its arrays."""
    if path.suffix == ".png":
        return {"pixels": pixels(path)}
    if path.suffix == ".safetensors":
        return weights(path)
    if path.suffix != ".npz":
        return {}
    with np.load(path) as arrays:
        return {name: _described(arrays[name]) for name in arrays.files}


def pixels(file: Any) -> str:
    """A digest of a picture, however it is packed."""
    image = Image.open(file)
    return _sha(str(image.size).encode() + image.convert("RGBA").tobytes())


def _described(array: Any) -> Figures:
    found: Figures = {"shape": "x".join(map(str, array.shape)), "digest": _sha(array.tobytes())}
    return found | ({"mean": float(array.mean(dtype=float))} if array.dtype.kind in "fiub" and array.size else {})


def _digest(tensor: torch.Tensor) -> str:
    content = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return _sha(f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + content)


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def flat(tree: Any, path: str) -> Figures:
    """Every leaf of a tree of JSON under its dotted path.

    Example:
        >>> flat({"kl": {"z": [1.0, 2.0]}}, "evaluate")
        {'evaluate.kl.z.0': 1.0, 'evaluate.kl.z.1': 2.0}
    """
    if isinstance(tree, dict | list) and tree:
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {p: value for key, branch in items for p, value in flat(branch, f"{path}.{key}").items()}
    return {path: repr(tree) if isinstance(tree, dict | list) or tree != tree else tree}


def differences(before: Figures, after: Figures) -> Iterator[tuple[str, str]]:
    """Kinds and descriptions of what differs: figures that moved to another name, are missing, new, or changed."""
    gone, new = ({k: a[k] for k in a if k not in b} for a, b in ((before, after), (after, before)))
    for path, value in gone.items():
        same = [other for other in new if new[other] == value and type(new[other]) is type(value)]
        if place := max(same, key=lambda other: _alike(path, other), default=None):
            yield "moved", f"{path} -> {place}"
            del new[place]
        else:
            yield "missing", f"{path} (was {value!r})"
    yield from (("new", f"{path} = {value!r}") for path, value in new.items())
    for path in before.keys() & after.keys():
        if before[path] != after[path]:
            yield "changed", f"{path}: {before[path]!r} -> {after[path]!r}"


def _alike(a: str, b: str) -> int:
    """How many words two paths share."""
    return len({*a.split(".")} & {*b.split(".")})


def without_words(figures: Figures) -> Figures:
    """The figures, but for sentences."""
    return {path: value for path, value in figures.items() if not (isinstance(value, str) and " " in value)}


def compare(before: dict[str, Figures], after: dict[str, Figures], words: bool = False) -> list[str]:
    """Every difference of two recordings, a line each, the combinations with none left out."""
    lines = [f"{name}: missing" for name in before if name not in after]
    lines += [f"{name}: new" for name in after if name not in before]
    for name in (name for name in before if name in after):
        a, b = (each[name] if words else without_words(each[name]) for each in (before, after))
        lines += [f"{name}: {kind} {what}" for kind, what in sorted(differences(a, b))]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="run the combinations and write their figures")
    recording.add_argument("out", type=Path)
    recording.add_argument("--only", default="*", help="pattern of names")
    recording.add_argument("--keep", type=Path, help="work in this empty folder, and leave it")
    recording.add_argument("--runs", type=Path, help="measure the run folders in here, in place of the combinations")
    recording.add_argument("--verbose", action="store_true", help="tell what the commands say")
    comparing = commands.add_parser("compare", help="what differs between two recordings")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.add_argument("--only", default="*", help="pattern of names")
    comparing.add_argument("--words", action="store_true", help="compare sentences too")
    given = parser.parse_args()
    if given.command == "record":
        torch.set_num_threads(1)
        keep, runs = (None if path is None else path.resolve() for path in (given.keep, given.runs))
        if keep is not None:
            keep.mkdir(parents=True)
        print(f"the code in {Path(tightbound.__file__).parent}", file=sys.stderr)
        found = record(only=given.only, keep=keep, runs=runs, verbose=given.verbose)
        given.out.write_text(json.dumps(found, indent=1) + "\n")
        return 0
    both = (json.loads(path.read_text()) for path in (given.before, given.after))
    before, after = ({name: each[name] for name in each if fnmatch(name, given.only)} for each in both)
    lines = compare(before, after, given.words)
    print(*lines, f"{len(lines)} differences in {len(before)} combinations", sep="\n")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
