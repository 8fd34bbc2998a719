"""Thousands of damaged files: each must be read, or refused by one typed error, in bounded memory and time.

``python tests/fuzz.py`` reads 5,000 of them, each in a process of its own; ``tests/project/test_fuzz.py`` some of them.
A new reader is a line in :data:`READERS`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import tightbound as tb
from data_helpers import amat, idx, make_tar, make_zip
from mutations import mutated
from tightbound.cli import main as cli
from tightbound.data import load_data
from tightbound.errors import TightboundError
from tightbound.options.priors import PixelCNNPrior
from tightbound.recipes import CVAE, VAE, VQVAE
from tightbound.training.second_stage import fit_prior

MOST_BYTES, MOST_SECONDS = 2**30, 20
QUICK: dict[str, Any] = {"steps": 2, "batch_size": 16, "pictures": False, "device": "cpu"}
PIXELS = np.random.default_rng(0).integers(0, 256, (24, 8, 8), dtype=np.uint8)


@dataclass(frozen=True)
class Reader:
    """What reads a file.

    Args:
        kind: How the file is damaged, a key of ``mutations.KINDS``.
        file: The file, in the folder of sound inputs.
        read: Reads it, given its path; returns nothing, or the exit code of a command.
        whole: What must lie beside it, in the same folder; default: the file alone.
    """

    kind: str
    file: str
    read: Callable[[Path], Any]
    whole: str | None = None


def command(*words: str) -> Callable[[Path], int]:
    """A command line; ``{}`` stands for the file, ``{run}`` for the folder of its run, ``{top}`` for that of all."""

    def read(path: Path) -> int:
        top = Path(os.environ["FUZZ_TOP"])
        run = path.parent.parent if path.parent.name == "checkpoints" else path.parent
        return cli.main([word.format(path, run=run, top=top, new=path.parent / "new") for word in words])

    return read


def _picture(suffix: str) -> Reader:
    return Reader(
        "png" if suffix == "png" else "bytes",
        f"pictures_{suffix}/a.{suffix}",
        lambda path: load_data(path.parent),
        f"pictures_{suffix}",
    )


def _idx(path: Path) -> None:
    from tightbound.data.sources.formats import read_idx

    read_idx(path)


def _amat(path: Path) -> None:
    from tightbound.data.sources.formats import read_amat

    read_amat(path, 64)


def _tokenizer(path: Path) -> None:
    from tightbound.conditions.tokenizer import Tokenizer

    with contextlib.suppress(UnicodeDecodeError):
        Tokenizer.from_json(path.read_text(encoding="utf8")).encode("a red circle")


def _judge(path: Path) -> None:
    from tightbound.encoders.contrastive import Contrastive

    Contrastive.load(path).tokens(["a red circle"])


def _cached(path: Path) -> None:
    """Decoded arrays beyond the limit of memory, found again in the cache."""
    with changed_environment(TIGHTBOUND_MEMORY_LIMIT="10", TIGHTBOUND_CACHE=str(path.parent.parent)):
        load_data(Path(os.environ["FUZZ_TOP"]) / "arrays.npz").train.batch(torch.arange(4))


EVALUATE = ("evaluate", "{run}", "-k", "2", "--device", "cpu")
READERS: dict[str, Reader] = {
    **{f"picture {suffix}": _picture(suffix) for suffix in ("png", "jpg", "webp", "bmp", "gif", "tif", "pgm")},
    "zip": Reader("zip", "pictures.zip", load_data),
    "tar": Reader("tar", "pictures.tar", load_data),
    "tar.gz": Reader("tar.gz", "pictures.tar.gz", load_data),
    "npy": Reader("npy", "array.npy", load_data),
    "npz": Reader("zip", "arrays.npz", load_data),
    "idx": Reader("bytes", "images.idx", _idx),
    "idx.gz": Reader("gz", "images.idx.gz", _idx),
    "amat": Reader("text", "images.amat", _amat),
    "captions": Reader("jsonl", "captioned/metadata.jsonl", lambda path: load_data(path.parent), "captioned"),
    "captions in a table": Reader("text", "tabled/metadata.csv", lambda path: load_data(path.parent), "tabled"),
    "table": Reader("text", "table.csv", lambda path: load_data(path, label="kind")),
    "parquet": Reader("bytes", "table.parquet", lambda path: load_data(path, label="kind")),
    "config": Reader("json", "run/config.json", command("info", "{run}"), "run"),
    "config of an evaluation": Reader("json", "run/config.json", command(*EVALUATE), "run"),
    "config to resume": Reader(
        "json", "stopped/config.json", command("train", "--resume", "--out", "{run}"), "stopped"
    ),
    "config of a second stage": Reader("json", "second/config.json", command("info", "{run}"), "second"),
    "weights": Reader("safetensors", "run/model.safetensors", command(*EVALUATE), "run"),
    "weights of codes": Reader("safetensors", "vq/model.safetensors", command(*EVALUATE), "vq"),
    "weights with a tokenizer": Reader(
        "safetensors",
        "text/model.safetensors",
        command("sample", "{run}", "--condition", "a red circle", "-n", "2", "--device", "cpu", "--out", "{new}.npz"),
        "text",
    ),
    "checkpoint": Reader(
        "safetensors", "stopped/checkpoints/last.safetensors", command("train", "--resume", "--out", "{run}"), "stopped"
    ),
    "metrics": Reader("jsonl", "run/metrics.jsonl", command("info", "{run}"), "run"),
    "metrics to resume": Reader(
        "jsonl", "stopped/metrics.jsonl", command("train", "--resume", "--out", "{run}"), "stopped"
    ),
    "evaluation": Reader("json", "run/evaluation.json", command("info", "{run}"), "run"),
    "report of an evaluation": Reader(
        "json", "run/evaluation.json", command("report", "{run}", "-k", "2", "--device", "cpu"), "run"
    ),
    "report of metrics": Reader(
        "jsonl", "run/metrics.jsonl", command("report", "{run}", "-k", "2", "--device", "cpu"), "run"
    ),
    "diagnosis": Reader("json", "run/diagnosis.json", command("info", "{run}"), "run"),
    "tokenizer": Reader("json", "tokenizer.json", _tokenizer),
    "judge": Reader("safetensors", "judge.safetensors", _judge),
    "conditions npy": Reader(
        "npy",
        "conditions.npy",
        command("sample", "{top}/cvae", "-n", "2", "--condition-file", "{}", "--device", "cpu", "--out", "{new}.npz"),
    ),
    "conditions text": Reader(
        "text",
        "conditions.txt",
        command("sample", "{top}/cvae", "-n", "2", "--condition-file", "{}", "--device", "cpu", "--out", "{new}.npz"),
    ),
    "latents": Reader(
        "safetensors",
        "vq/latents.safetensors",
        command(
            "fit-prior",
            "{top}/vq",
            "--latents",
            "{}",
            "--steps",
            "1",
            "--layers",
            "1",
            "--channels",
            "4",
            "--kernel",
            "3",
            "--no-pictures",
            "--device",
            "cpu",
            "--out",
            "{new}",
        ),
    ),
    "own latents": Reader(
        "safetensors",
        "vq/latents.safetensors",
        command(
            "fit-prior",
            "{run}",
            "--steps",
            "1",
            "--layers",
            "1",
            "--channels",
            "4",
            "--kernel",
            "3",
            "--no-pictures",
            "--device",
            "cpu",
            "--out",
            "{new}",
        ),
        "vq",
    ),
    "decoded cache": Reader("npy", "cache/decoded/*.npy", _cached, "cache"),
}
"""Every reader by its name."""
SLOW = ("report of an evaluation", "report of metrics")
"""Readers that take seconds."""


# -- sound inputs -----------------------------------------------------------------------------------------------------


def write_inputs(top: Path) -> None:
    """A sound file for every reader."""
    files = {f"{c}/{i}.png": _encoded(PIXELS[12 * c + i], "png") for c in (0, 1) for i in range(12)}
    for suffix in ("png", "jpg", "webp", "bmp", "gif", "tif", "pgm"):
        (top / f"pictures_{suffix}").mkdir()
        for i, name in enumerate("abcdefgh"):
            (top / f"pictures_{suffix}" / f"{name}.{suffix}").write_bytes(_encoded(PIXELS[i], suffix))
    make_zip(top / "pictures.zip", files)
    make_tar(top / "pictures.tar", files)
    make_tar(top / "pictures.tar.gz", files, "w:gz")
    np.save(top / "array.npy", PIXELS)
    labels = np.arange(24) % 3
    np.savez(top / "arrays.npz", train=PIXELS, y_train=labels, test=PIXELS[:8], levels=256)
    np.savez(top / "conditioned.npz", x=PIXELS, c=np.random.default_rng(1).normal(size=(24, 3)).astype(np.float32))
    import gzip

    (top / "images.idx").write_bytes(idx(PIXELS))
    (top / "images.idx.gz").write_bytes(gzip.compress(idx(PIXELS)))
    (top / "images.amat").write_bytes(amat((PIXELS > 128).astype(np.uint8).reshape(24, 64)))
    _write_captions(top / "captioned")
    _write_tables(top)
    _write_runs(top)
    _write_cache(top)


def _encoded(pixels: Any, suffix: str) -> bytes:
    file = io.BytesIO()
    kind = {"jpg": "jpeg", "tif": "tiff", "pgm": "ppm"}.get(suffix, suffix)
    Image.fromarray(pixels).convert("RGB" if suffix in ("jpg", "webp") else "L").save(file, kind)
    return file.getvalue()


def _write_captions(folder: Path) -> None:
    folder.mkdir()
    words = ["a red circle", "a blue square", "a red square", "a blue circle"]
    for i in range(24):
        (folder / f"{i:02d}.png").write_bytes(_encoded(PIXELS[i], "png"))
    lines = [f'{{"file_name": "{i:02d}.png", "text": "{words[i % 4]}"}}\n' for i in range(24)]
    (folder / "metadata.jsonl").write_text("".join(lines))


def _write_tables(top: Path) -> None:
    """The same captions, and a table of numbers, as text and as columns."""
    import pyarrow
    import pyarrow.parquet

    shutil.copytree(top / "captioned", top / "tabled", ignore=shutil.ignore_patterns("metadata.jsonl"))
    rows = [f'{i:02d}.png,"a red circle, {i}"' for i in range(24)]
    (top / "tabled" / "metadata.csv").write_text("\n".join(["file_name,text", *rows]) + "\n")
    columns = {
        "width": [i / 2 for i in range(30)],
        "height": [1000 * i for i in range(30)],
        "kind": ["a", "b", "c"] * 10,
    }
    lines = [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    (top / "table.csv").write_text("\n".join([",".join(columns), *lines]) + "\n")
    pyarrow.parquet.write_table(pyarrow.table(columns), top / "table.parquet")


def _write_runs(top: Path) -> None:
    from tightbound.conditions.tokenizer import Tokenizer
    from tightbound.encoders.contrastive import Contrastive, ContrastiveConfig

    data = load_data(top / "arrays.npz")
    small = VAE(latent_dim=2, hidden=(4,))
    tb.train(small.build(data.spec), data, out=top / "run", **QUICK)
    tb.train(small.build(data.spec), data, out=top / "stopped", **{**QUICK, "steps": 4})
    quiet(cli.main, ["evaluate", str(top / "run"), "-k", "2", "--device", "cpu"])
    quiet(cli.main, ["diagnose", str(top / "run"), "-k", "2", "--device", "cpu"])
    vq = VQVAE(codes=4, code_dim=2, channels=(4,), blocks=0, likelihood="categorical")
    tb.train(vq.build(data.spec), data, out=top / "vq", **QUICK)
    prior = PixelCNNPrior(layers=1, channels=4, kernel=3)
    fit_prior(top / "vq", out=top / "second", prior=prior, **QUICK)
    conditioned = load_data(top / "conditioned.npz")
    tb.train(
        CVAE(latent_dim=2, hidden=(4,), condition="vector").build(conditioned.spec),
        conditioned,
        out=top / "cvae",
        **QUICK,
    )
    np.save(top / "conditions.npy", np.zeros((2, 3), np.float32))
    (top / "conditions.txt").write_text("0.5 1 -2\n1 2 3\n")
    captioned = load_data(top / "captioned")
    text = CVAE(latent_dim=2, hidden=(4,), condition="text")
    model = text.build(captioned.spec)
    tb.train(model, captioned, out=top / "text", **QUICK)
    tokenizer = Tokenizer.train(captioned.train.captions or (), 270)
    (top / "tokenizer.json").write_text(tokenizer.json(), encoding="utf8")
    judge = Contrastive(ContrastiveConfig((1, 8, 8), 300, 16, 4, (4,)))
    judge.text.initialise_captions(captioned.train.captions or ())
    judge.save(top / "judge.safetensors")


def _write_cache(top: Path) -> None:
    with changed_environment(TIGHTBOUND_MEMORY_LIMIT="10", TIGHTBOUND_CACHE=str(top / "cache")):
        load_data(top / "arrays.npz")


@contextlib.contextmanager
def changed_environment(**values: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def quiet(work: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """What a call gives, and what it printed as an error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return work(*arguments), err.getvalue()


# -- one mutant, and many ---------------------------------------------------------------------------------------------


def sound(top: Path, reader: Reader) -> Path:
    """The sound file of a reader."""
    return sorted(top.glob(reader.file))[0] if "*" in reader.file else top / reader.file


def outcome(top: Path, name: str, seed: int | None) -> str:
    """Damages the file of a reader, unless the seed is None, and reads it: ``read``, ``refused`` or a fault."""
    reader = READERS[name]
    file = sound(top, reader)
    with tempfile.TemporaryDirectory(dir=top) as scratch:
        if reader.whole is None:
            path = Path(scratch) / file.name
        else:
            shutil.copytree(top / reader.whole, Path(scratch) / reader.whole)
            path = Path(scratch) / file.relative_to(top)
        content = file.read_bytes()
        path.write_bytes(content if seed is None else mutated(reader.kind, content, (name, seed)))
        with changed_environment(FUZZ_TOP=str(top)):
            return _told(reader, path)


def _told(reader: Reader, path: Path) -> str:
    try:
        code, said = quiet(reader.read, path)
    except TightboundError as error:
        return _bare(str(error)) or "refused"
    except Exception:
        return traceback.format_exc()
    if not isinstance(code, int):
        return "read"
    if code not in (0, 1, 2) or "Traceback" in said:
        return f"exit code {code}: {said}"
    return (_bare(said) or "refused") if code else "read"


def _bare(said: str) -> str | None:
    """An error that is only what Python said."""
    found = re.search(r"^error: (\w*Error:.*|There is not enough memory.*)", said, re.MULTILINE)
    return f"bare: {found.group()}" if found else None


def judged(top: Path, name: str, seed: int) -> tuple[str, int, float]:
    """The same in a process of its own: the outcome, the most bytes that it held, and the seconds that it took."""
    report, began = top / f"outcome-{os.getpid()}", time.monotonic()
    report.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        most = _address_space() + 4 * MOST_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        try:
            report.write_text(outcome(top, name, seed), encoding="utf8", errors="replace")
        except BaseException:
            report.write_text(traceback.format_exc(), encoding="utf8", errors="replace")
        finally:
            os._exit(0)
    while (ended := os.wait4(child, os.WNOHANG))[0] == 0:
        if time.monotonic() - began > 10 * MOST_SECONDS:
            os.kill(child, signal.SIGKILL)
            ended = os.wait4(child, 0)
            break
        time.sleep(0.005)
    seconds = ended[2].ru_utime + ended[2].ru_stime  # of the processor, which others may use meanwhile
    told = report.read_text(encoding="utf8") if report.is_file() else f"died of signal {ended[1]}"
    used = ended[2].ru_maxrss * 1024
    if seconds > MOST_SECONDS:
        told = f"{seconds:.0f} seconds"
    elif used > MOST_BYTES:
        told = f"{used >> 20} MiB of memory ({told.splitlines()[-1]})"
    return told, used, seconds


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--readers", nargs="*", default=sorted(READERS), choices=sorted(READERS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    counts, kinds = Counter[str](), defaultdict[str, list[str]](list)
    most, longest = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        write_inputs(top)
        for name, seed in _plan(options.readers, options.mutants, options.first):
            told, used, seconds = judged(top, name, seed)
            most, longest = max(most, used), max(longest, seconds)
            counts[told if told in ("read", "refused") else "failed"] += 1
            if told not in ("read", "refused"):
                kinds[_where(told)].append(f"{name} {seed}")
    for told, mutants in sorted(kinds.items()):
        print(f"--- {', '.join(mutants[:8])} ({len(mutants)})\n{told}")
    print(f"{dict(counts)}; at most {most >> 20} MiB and {longest:.1f} s")
    return int(counts["failed"] > 0)


def _where(told: str) -> str:
    """What went wrong, and the last lines of this package that it went through."""
    lines = told.strip().splitlines()
    places = [line.strip() for line in lines if "tightbound/" in line and line.lstrip().startswith("File")]
    return "\n".join([*places[-3:], lines[-1][:300]])


def _plan(names: list[str], mutants: int, first: int) -> Iterator[tuple[str, int]]:
    """So many mutants over all readers; one of ten for those that take seconds."""
    seed, left = first, mutants
    while left > 0:
        for name in names:
            if left > 0 and (name not in SLOW or seed % 10 == 0 or names == [name]):
                yield name, seed
                left -= 1
        seed += 1


if __name__ == "__main__":
    sys.exit(main())
