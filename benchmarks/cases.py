"""What is measured: each case runs its contenders and returns rows of a table, with the target where there is one."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from cases_codes import pixelcnn_sampling, quantizer, transformer_sampling
from cases_hierarchies import ladder
from process import PYTHON, Result, alternate, contender, median_of, seconds
from rows import Plan, Row, at_least

__all__ = ["CASES"]

RATE, POINTS = "examples_per_second", "points_times_k_per_second"


def _initial_weights(plan: Plan, network: str) -> tuple[Path, Row]:
    """pythae's initial weights in a file, and how far the two losses of the same batch are apart."""
    path = plan.weights / f"{network}.pt"
    contender("peer", "export", network=network, save=path)
    ours, theirs = (contender(who, "parity", network=network, weights=path)["loss"] for who in ("ours", "peer"))
    apart = abs(ours - theirs) / abs(theirs)
    if apart > 1e-4:
        raise SystemExit(f"The contenders do not compute the same loss: {ours} and {theirs} nats.")
    return path, Row("parity: relative difference of the first loss", apart, "", target="≤ 1e-4", met=True)


def _training(plan: Plan, network: str, **options: Any) -> tuple[Callable[..., Callable[[], Result]], Row]:
    weights, parity = _initial_weights(plan, network)
    shared = {"network": network, "weights": weights, "threads": plan.threads, **options}
    return lambda who, **more: partial(contender, who, "train", **{**shared, **more}), parity


def train_mlp(plan: Plan) -> list[Row]:
    """Training an MLP 784-512-(16)-512-784, batch 128, float32: little arithmetic, so overhead shows."""
    run, parity = _training(plan, "mlp", examples=plan.examples, epochs=plan.epochs)
    runs = {
        "tightbound": run("ours"),
        "tightbound, torch's linear layers": run("ours", torch_layers=True),
        "bare loop": run("bare", optimizer="default"),
        "bare loop, fused Adam": run("bare"),
        "pythae": run("peer"),
        "pythae, 4 workers": run("peer", workers=4),
    }
    least = {"bare loop, fused Adam": 0.95, "tightbound, torch's linear layers": 0.97, "pythae": 1.3}
    results = alternate(runs, plan.rounds)
    return [*(at_least(name, results, "tightbound", RATE, least.get(name)) for name in runs), parity]


def train_convolutional(plan: Plan) -> list[Row]:
    """Training pythae's convolutional MNIST network, batch 128: arithmetic dominates, so precision shows."""
    examples = max(128 * 3, plan.examples // 20 // 128 * 128)
    run, parity = _training(plan, "convolutional", examples=examples, epochs=min(3, plan.epochs))
    auto = 'tightbound, precision="auto"'
    runs = {
        auto: run("ours", precision="auto"),
        "tightbound, bf16-mixed": run("ours", precision="bf16-mixed"),
        "tightbound, auto, compiled": run("ours", precision="auto", compile=True),
        "bare loop, float32": run("bare", optimizer="default"),
        "pythae": run("peer"),
    }
    results, least = alternate(runs, plan.rounds), {"pythae": 2.0}
    return [*(at_least(name, results, auto, RATE, least.get(name)) for name in runs), parity]


def importance_weighted_nll(plan: Plan) -> list[Row]:
    """Importance-weighted NLL of the trained MLP, k = 1000, float32, no gradient asked for."""
    weights = _trained_weights(plan)
    shared = {"weights": weights, "threads": plan.threads, "k": 1000, "images": plan.images, "repeats": 5}
    slow = {**shared, "images": max(5, plan.images // 10)}
    runs = {
        "tightbound": partial(contender, "ours", "nll", **shared),
        "tightbound, torch's linear layers": partial(contender, "ours", "nll", torch_layers=True, **shared),
        "bare, one image at once": partial(contender, "bare", "nll", **shared),
        "pythae, batches of 100": partial(contender, "peer", "nll", chunk=100, **slow),
        "pythae, batches of 100, no_grad": partial(contender, "peer", "nll", chunk=100, no_grad=True, **slow),
        "pythae, batches of 1000": partial(contender, "peer", "nll", chunk=1000, **slow),
        "pythae, batches of 1000, no_grad": partial(contender, "peer", "nll", chunk=1000, no_grad=True, **slow),
    }
    results = alternate(runs, plan.rounds)
    rows = [at_least(name, results, "tightbound", POINTS, 3.0 if "pythae" in name else None) for name in runs]
    return [*rows, _same_nll(slow), *_memory(shared)]


def _trained_weights(plan: Plan) -> Path:
    start, _ = _initial_weights(plan, "mlp")
    path = plan.weights / "trained.pt"
    contender("bare", "train", weights=start, save=path, examples=plan.examples, epochs=plan.epochs)
    return path


def _same_nll(options: dict[str, Any]) -> Row:
    """How many standard errors (of five repeats) the two means on the same images are apart."""
    values = [contender(who, "nll", **options)["nll"] for who in ("ours", "peer")]
    ours, theirs = values
    error = math.sqrt(sum(statistics.variance(v) / len(v) for v in values))
    apart = abs(statistics.mean(ours) - statistics.mean(theirs)) / error
    return Row("|ΔNLL| to pythae on the same images", apart, "standard errors", target="< 3", met=apart < 3)


def _memory(shared: dict[str, Any]) -> list[Row]:
    """Peak memory over what the process held before, by k."""
    peaks = {k: [_peak(who, {**shared, "k": k}) for who in ("ours", "peer")] for k in (100, 1000, 5000)}
    allowed = 1.5 * peaks[100][0] + 8
    rows = [_peak_row(k, ours, allowed) for k, (ours, _) in peaks.items()]
    return [*rows, *(Row(f"peak memory of pythae, k = {k}", theirs, "MiB") for k, (_, theirs) in peaks.items())]


def _peak(who: str, shared: dict[str, Any]) -> float:
    return contender(who, "nll", **{**shared, "images": 20, "repeats": 1})["peak_mebibytes"]


def _peak_row(k: int, peak: float, allowed: float) -> Row:
    if k == 100:
        return Row(f"peak memory, k = {k}", peak, "MiB")
    return Row(f"peak memory, k = {k}", peak, "MiB", target="does not grow", met=peak <= allowed)


def matrix_products(plan: Plan) -> list[Row]:
    """How much of the time is the matrix products that are needed: k = 5000, and a training step with a VampPrior."""
    weights = _trained_weights(plan)
    runs = {
        "nll": partial(contender, "products", "nll", weights=weights, threads=plan.threads, images=20),
        "vamp": partial(contender, "products", "vamp", threads=plan.threads, repeats=50),
    }
    results = alternate(runs, plan.rounds)
    share = lambda name, key: median_of(results[name], key)
    rows = [
        ("importance-weighted NLL, float32: share of the decoder's products", share("nll", "plain"), 0.6),
        ("the same with --compile", share("nll", "compiled"), 0.75),
        ("step with a VampPrior of 500 pseudo-inputs: share of its products", share("vamp", "step"), 1 / 1.15),
    ]
    return [Row(what, value, "", target=f"≥ {least:.2f}", met=value >= least) for what, value, least in rows]


def linear_layers(plan: Plan) -> list[Row]:
    """A linear layer at several shapes; the value is how many times as fast oneDNN is as torch's own layer.

    The ratio is that of our layer, which takes the one or the other by the kind of processor, to torch's own.
    """
    runs = {"speed": partial(contender, "linear", "speed", threads=plan.threads, turns=3 * plan.turns)}
    found = [result["speeds"] for result in alternate(runs, plan.rounds)["speed"]]
    faster = lambda what, way: statistics.median(f[what][way] for f in found)
    rows = [(what, faster(what, "onednn"), faster(what, "ours")) for what in found[0]]
    return [Row(what, onednn, "×", ours, "≥ 0.95", ours >= 0.95) for what, onednn, ours in rows]


def startup(plan: Plan) -> list[Row]:
    """Importing, and the command line's help."""
    command = Path(PYTHON["ours"]).parent / "tightbound"
    help_text = partial(seconds, [str(command), "--help"])
    runs = {"imports": partial(contender, "startup", ""), "help": help_text}
    results = alternate(runs, 3 + 2 * plan.rounds)
    rows = [Row(name, median_of(results["imports"], name), "s") for name in results["imports"][0]]
    rows[1] = _at_most(rows[1], 0.2)
    return [*rows, _at_most(Row("tightbound --help", median_of(results["help"], "seconds"), "s"), 0.5)]


def _at_most(row: Row, limit: float) -> Row:
    return dataclasses.replace(row, target=f"≤ {limit} s", met=row.value <= limit)


CASES: dict[str, Callable[[Plan], list[Row]]] = {
    "train-mlp": train_mlp,
    "train-convolutional": train_convolutional,
    "importance-weighted-nll": importance_weighted_nll,
    "matrix-products": matrix_products,
    "linear-layers": linear_layers,
    "quantizer": quantizer,
    "pixelcnn-sampling": pixelcnn_sampling,
    "transformer-sampling": transformer_sampling,
    "ladder": ladder,
    "startup": startup,
}
