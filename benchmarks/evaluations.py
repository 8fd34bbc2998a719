"""What `tightbound evaluate` does by itself, held against annealed importance sampling with twice its temperatures.

    python benchmarks/evaluations.py

Every case is one training, one evaluation of the whole test split without options, and two of a few examples of it,
without options and annealed; what they print is kept in ``benchmarks/results/evaluate-NAME.json``, and all of them in
``docs/evaluation.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from typing import Any

from reproduce import RESULTS, ROOT, provenance, tightbound

ANNEALED = "--method annealed --temperatures 1000 -k 8"


@dataclass(frozen=True)
class Case:
    """A model, and how many examples of its test split are annealed."""

    name: str
    what: str
    train: str
    annealed: int


CASES = [
    Case("demo", "the demo: 17 levels, 16 latents", "vae --data digits", 24),
    Case(
        "bernoulli-20-latents",
        "binarised digits, 20 latents",
        "vae --data digits --binarize dynamic --latent-dim 20",
        8,
    ),
    Case("two-latents", "17 levels, 2 latents", "vae --data digits --latent-dim 2", 8),
    Case("linear", "linear VAE: q is exact", "linear-vae --data digits --dequantize", 8),
    Case(
        "linear-amortised",
        "linear VAE, q diagonal and learned for 10 epochs",
        "linear-vae --data digits --dequantize --posterior gaussian --epochs 10",
        8,
    ),
    Case(
        "mnist",
        "binarised MNIST, 20 latents, 5 epochs",
        "vae --data mnist --binarize dynamic --latent-dim 20 --hidden 200 200 --epochs 5",
        4,
    ),
]
_KEPT = ("headline", "nll", "trusted", "proposals", "effective_sample_size", "pareto_k", "unreliable", "notes")
TEXT = """# The likelihood that each example needs

    python benchmarks/evaluations.py

`tightbound evaluate RUN` estimates log p(x) by importance samples and judges, example by example, whether they are
enough: at least 25 effective samples, and a tail of the weights with a Pareto shape k̂ of at most 0.5 (0.7 for the
samples of the estimate itself, which are others). Where they are not, it goes on by itself:

1. **posterior**: 500 samples of the encoder's q(z | x);
2. **optimised**: 500 samples of 0.85 q\\* + 0.10 q + 0.05 p(z), with q\\* the Gaussian of full covariance (diagonal
   above 64 latents) with the best ELBO for this one example, its standard deviations times 1.2. q and the prior keep
   the weights bounded where q\\* is too narrow;
3. **more_samples**: 4,000 samples of the same kind after a longer optimisation; of codes, 4,000 samples of q;
4. **annealed**: annealed importance sampling, 16 chains of 500 temperatures, if more than 2 % of the examples are left.

An example stays on a rung where other samples than those of its estimate speak for it, and its own do too. Judged by
its own alone, one whose samples miss the one large weight would be too low *and* look good, so that the estimates that
are too low would be picked.

No weights of q's own samples can show that q lacks a mode of the posterior: with four modes, and q on one of them, all
examples had a good k̂ and were 7 nats too low. In up to 4 latent dimensions, where samples of the prior find the others,
40 % of every proposal is therefore the prior. In more dimensions only `--method annealed --limit 20`, which starts from
the prior, is a check.

`--budget SECONDS` (120) decides how far it goes; each part of a rung is a fixed amount of work with its own seed, so
the numbers are the same wherever the budget does not end it. Where it does, the examples that were reached are drawn at
random from those that need it, and the others count with their mean gain (double sampling with a difference estimator,
Cochran 1977): the standard error grows by what that leaves open. With fewer than 50 of them the number is an upper
bound, and `trusted` is false. A bound is printed as `NLL ≤ …`, without an error; where a trusted number is itself a
bound on discrete data (`--dequantize`), with one. A posterior that is a single code (`vq-vae`) gives no more than minus
the ELBO, which is a bound too. The check of annealing on simulated data comes on top of the budget.

How samples and reconstructions are compared with data, in features and in bits, is on [a page of its own](quality.md).

The last three columns are of some of the same examples, by `evaluate` and by annealing with 1,000 temperatures.

| model | whole test split | trusted | proposals | k̂, ESS | time | some: evaluate | annealed | difference |
|---|---|---|---|---|---|---|---|---|
"""


def run(case: Case) -> dict[str, Any]:
    """Trains, unless the run is there, evaluates and writes the result of one case."""
    folder = ROOT / "runs" / f"evaluate-{case.name}"
    if not (folder / "model.safetensors").is_file():
        tightbound(f"train {case.train} --out {folder} --no-pictures")
    started = time.monotonic()
    found = json.loads(tightbound(f"evaluate {folder} --json"))
    seconds = time.monotonic() - started
    some, reference = (
        json.loads(tightbound(f"evaluate {folder} --limit {case.annealed} {how} --json"))
        for how in ("--budget 600", ANNEALED)
    )
    result = {
        "name": case.name,
        "what": case.what,
        "command": f"tightbound train {case.train} --out RUN; tightbound evaluate RUN",
        "n": found["n"],
        "seconds": round(seconds, 1),
        "evaluate": {name: found[name] for name in _KEPT},
        "examples": case.annealed,
        "evaluate_some": {name: some[name] for name in _KEPT},
        "annealed_some": {name: reference[name] for name in (*_KEPT, "bidirectional_gap")},
        "difference": some["nll"]["value"] - reference["nll"]["value"],
        **provenance(),
    }
    (RESULTS / f"evaluate-{case.name}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf8")
    return result


def write_table() -> None:
    """Writes docs/evaluation.md from all results there are."""
    results = [json.loads(path.read_text(encoding="utf8")) for c in CASES if (path := _path(c)).is_file()]
    rows = "".join(_row(r) for r in results)
    more = "".join(f"\n`{r['command']}` ({r['hardware']}, {r['commit']}, {r['date']})\n" for r in results)
    (ROOT / "docs" / "evaluation.md").write_text(f"{TEXT}{rows}{more}", encoding="utf8")


def _path(case: Case) -> Any:
    return RESULTS / f"evaluate-{case.name}.json"


def _row(r: dict[str, Any]) -> str:
    e, some, reference = r["evaluate"], r["evaluate_some"], r["annealed_some"]
    needed = ", ".join(f"{name} {count:,}" for name, count in e["proposals"].items())
    quality = f"{e['pareto_k']:.2f}, {e['effective_sample_size']:.0f}"
    gap = f"{reference['nll']['value']:.2f} (gap {reference['bidirectional_gap']['value']:.2f})"
    cells = [r["what"], e["headline"], "yes" if e["trusted"] else "no", needed, quality, f"{r['seconds']:.0f} s"]
    cells += [f"{some['nll']['value']:.2f} on {r['examples']}", gap, f"{r['difference']:+.2f}"]
    return f"| {' | '.join(cells)} |\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=[c.name for c in CASES], help="some of the cases")
    chosen = parser.parse_args().only
    for case in CASES:
        if not chosen or case.name in chosen:
            result = run(case)
            print(
                f"{case.name}: {result['evaluate']['headline']}, {result['difference']:+.2f} from annealing", flush=True
            )
    write_table()
    return 0


if __name__ == "__main__":
    sys.exit(main())
