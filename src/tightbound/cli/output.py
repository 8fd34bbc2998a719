"""What the commands print and write: tables, JSON, pictures and arrays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from ..data import DataSpec

__all__ = [
    "as_names",
    "check_output",
    "examples_of",
    "print_comparison",
    "print_diagnosis",
    "print_evaluation",
    "print_json",
    "print_pairs",
    "print_written",
    "write",
    "write_arrays",
]


def examples_of(n: int, split: str) -> str:
    """So many examples of a split, in words.

    Example:
        >>> examples_of(40, "test"), examples_of(1, "all")
        ('40 test examples', '1 example')
    """
    return f"{n:,} {'' if split == 'all' else f'{split} '}example{'s' * (n != 1)}"


def print_evaluation(found: dict[str, Any], units: str = "the data's units") -> None:
    """An evaluation as a table, its notes below.

    Args:
        found: What ``Evaluation.json()`` gives.
        units: What the numbers of an example are, in words.
    """
    from rich.console import Console
    from rich.table import Table

    how = {"importance": f"k = {found['k']}", "auto": f"k = {found['k']} or more"}
    told = how.get(found["method"], f"k = {found['k']}, {found['method']} sampling")
    table = Table(title=f"{examples_of(found['n'], found['split'])}, {told}")
    for column in ("", "value", "standard error", "unit"):
        table.add_column(column, justify="left" if column in ("", "unit") else "right", no_wrap=column != "unit")
    told_in: dict[str, str] = dict.fromkeys(("bits_per_dim", "uniform_bits_per_dim"), "bits per dimension")
    digits: dict[str, int] = dict.fromkeys(told_in, 4)
    unit = {"none": "nats, no likelihood", "density": "nats of density"}.get(found["measure"], "nats per example")
    told_in["squared_error"], digits["squared_error"] = f"{units}, squared and summed", 3
    others = ("prediction", "uniform_bits_per_dim", "relaxation_gap", "squared_error")
    given = [name for name in others if found[name] is not None]
    doubtful, most = found["trusted"] is False, found["trusted"] is False or found["measure"] == "bound"
    for name in ("elbo", "reconstruction", "kl", "nll", "bits_per_dim", *given):
        value, d = found[name], digits.get(name, 2)
        numbers = (None, None) if value is None else (value["value"], value["standard_error"])
        cells = ["–" if number is None else f"{number:.{d}f}" for number in numbers]
        if most and name in ("nll", "bits_per_dim") and value is not None:
            cells = [f"≤ {cells[0]}", "–" if doubtful else cells[1]]
        table.add_row(name, *cells, told_in.get(name, unit))
    of_codes = [name for name in ("codebook_usage", "perplexity") if found[name] is not None]
    for name in ("effective_sample_size", "pareto_k", "active_units", *of_codes):
        value, d = found[name], {"pareto_k": 2, "codebook_usage": 3}.get(name, 1)
        text = "–" if value is None else f"{value:.{d}f}" if isinstance(value, float) else str(value)
        table.add_row(name, text, "", "")
    notes, quality = list(found["notes"]), found["sample_quality"]
    if (noise := found["decoder_noise"]) is not None:
        notes.append(_add_noise(table, noise))
    for name, count in (found["proposals"] or {}).items():
        table.add_row(f"  {name}", f"{count:,}", "", "examples")
    if found["bidirectional_gap"] is not None:
        table.add_row("bidirectional_gap", f"{found['bidirectional_gap']['value']:.2f}", "", "nats, simulated")
    if quality is not None:
        _add_quality(table, quality)
        notes += quality["notes"]
    console = Console()
    console.print(f"[bold]{found['headline']}[/bold]", highlight=False)
    console.print(table)
    for note in notes:
        console.print(f"note: {note}", highlight=False, markup=False)


def _add_noise(table: Any, noise: dict[str, Any]) -> str:
    """A row, and what it means."""
    from ..evaluation import DecoderNoise

    table.add_row("decoder σ", f"{noise['std']:.3f}", "", f"the data's {noise['data_std']:.3f}")
    return DecoderNoise(**noise).remark


_QUALITY = {
    "samples": "Fréchet distance of samples",
    "uniform": "  of samples with uniform codes",
    "reconstructions": "  of reconstructions",
    "data": "  of training examples",
}


def _add_quality(table: Any, quality: dict[str, Any]) -> None:
    table.add_section()
    for name, words in _QUALITY.items():
        if (value := quality[name]) is not None:
            table.add_row(words, f"{value['value']:.2f}", f"{value['standard_error']:.2f}", "features²")
    if (value := quality["accuracy"]) is not None:
        table.add_row("labels told by the features", f"{value['value']:.1%}", "", "")


_DIAGNOSED = {
    "fit": ("fit: negative log-likelihood", "first goal"),
    "aggregate_kl_at_least": ("consistency: KL(q(z) ‖ p(z)), at least", "second goal"),
    "aggregate_kl": ("  and at most", ""),
    "gap": ("tightness: log p(x) − ELBO", "third goal"),
    "approximation_gap": ("  of it the posterior family's", ""),
    "amortisation_gap": ("  of it the encoder's", ""),
    "reconstruction": ("reconstruction", ""),
    "kl": ("KL of posterior and prior", ""),
    "mutual_information": ("mutual information I(x; z), at least", ""),
    "mutual_information_at_most": ("  and at most", ""),
    "total_correlation": ("total correlation of the codes", ""),
    "decoder_use": ("loss with the latents exchanged", ""),
}


def print_diagnosis(found: dict[str, Any]) -> None:
    """A diagnosis as a verdict, a table and its notes."""
    from rich.console import Console
    from rich.table import Table

    fewer = f"; likelihood and gap: {found['fit_n']}" if found["fit_n"] not in (0, found["n"]) else ""
    table = Table(title=f"{examples_of(found['n'], found['split'])}{fewer}")
    table.add_column("nats per example", no_wrap=True)
    for column in ("value", "standard error", ""):
        table.add_column(column, justify="right" if column else "left")
    for name, (words, goal) in _DIAGNOSED.items():
        value = found[name] or {"value": None, "standard_error": None}
        cells = ["–" if number is None else f"{number:.2f}" for number in value.values()]
        table.add_row(words, *cells, goal)
    codes, carrying = found["information_per_position"] is not None, found["carrying"]
    what, convention = ("positions of codes", "") if codes else ("latent dimensions", " (Burda)")
    if carrying is not None:
        table.add_row(f"{what} that carry 99 %", f"{len(carrying)} of {found['dimensions']}", "", "")
    table.add_row(f"active {what}{convention}", f"{found['active_units']} of {found['dimensions']}", "", "")
    console = Console(highlight=False)
    console.print(f"[bold]{found['verdict']}[/bold]: {found['cause']}.", f"Remedy: {found['remedy']}.", sep="\n")
    console.print(table)
    for note in found["notes"]:
        console.print(f"note: {note}", markup=False)


_COMPARED = {
    "nll": ("NLL, nats", 2),
    "bits_per_dim": ("bits per dimension", 4),
    "elbo": ("ELBO, nats", 2),
    "reconstruction": ("reconstruction, nats", 2),
    "kl": ("KL, nats", 2),
    "squared_error": ("squared error", 3),
}


def print_comparison(found: dict[str, Any]) -> None:
    """Runs as the columns of a table, the differences of the first from the others, and the notes."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    runs, console = found["runs"], Console(highlight=False)
    title = f"{examples_of(found['n'], found['split'])}, k = {found['k']}"
    table = Table("", *(escape(run["label"]) for run in runs), title=title)
    for name in ("recipe", "data", "steps", "parameters"):
        table.add_row(name, *(escape(str(run[name])) for run in runs))
    for name in dict.fromkeys(name for run in runs for name in run["options"]):
        values = [run["options"].get(name, "–") for run in runs]
        table.add_row(f"--{name.replace('_', '-')}", *(escape(_word(value)) for value in values))
    table.add_section()
    for name, (words, digits) in _COMPARED.items():
        likelihood = name in ("nll", "bits_per_dim")
        cells = [_of_run(run, name, digits) if likelihood else _estimate(run[name], digits) for run in runs]
        table.add_row(words, *cells)
    table.add_row("active units", *(f"{run['active_units']} of {run['dimensions']}" for run in runs))
    table.add_row("measure", *(run["measure"] for run in runs))
    console.print(table)
    console.print(_differences_table(found))
    for run in runs:
        for note in run["notes"]:
            console.print(f"{run['label']}: {note}", markup=False)


def _differences_table(found: dict[str, Any]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    labels = {run["run"]: run["label"] for run in found["runs"]}
    doubtful = {run["run"] for run in found["runs"] if run["trusted"] is False}
    names = ("nll", "elbo", "squared_error")
    table = Table("", *(_COMPARED[name][0] for name in names), "", title="differences, example by example")
    for entry in found["differences"]:
        cells = [_estimate(entry[name], _COMPARED[name][1]) for name in names]
        reason = entry["reason"]
        if doubtful & {entry["run"], entry["other"]} and entry["nll"] is not None:
            cells[0] = f"{entry['nll']['value']:.{_COMPARED['nll'][1]}f}"
            reason = "; ".join(filter(None, (reason, "the NLL of one is a bound, so their difference has no error")))
        table.add_row(escape(f"{labels[entry['run']]} − {labels[entry['other']]}"), *cells, escape(reason))
    return table


def _of_run(run: dict[str, Any], name: str, digits: int) -> str:
    """The likelihood of a run: as a bound where it is one, and without its error where that is not deserved."""
    if run[name] is None or not (run["trusted"] is False or run["measure"] == "bound"):
        return _estimate(run[name], digits)
    return f"≤ {run[name]['value']:.{digits}f}" if run["trusted"] is False else f"≤ {_estimate(run[name], digits)}"


def _estimate(value: dict[str, Any] | None, digits: int) -> str:
    if value is None:
        return "–"
    return " ± ".join(f"{number:.{digits}f}" for number in value.values() if number is not None)


def _word(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def check_output(path: Path, spec: DataSpec | None) -> Path:
    """The path, if what is to come can be written there: asked before the work, not behind it.

    Raises:
        UsageError: If its ending is not known, or the data cannot be drawn.
    """
    if path.suffix not in (".png", ".npz"):
        raise UsageError("The kind of file is not known.", got=path, expected="a name that ends in .png or .npz")
    if path.suffix == ".png" and spec is not None:
        from ..views.samples import check_image

        check_image(spec)
    return path


def write(
    parts: dict[str, Tensor],
    path: Path,
    spec: DataSpec | None,
    across: bool = False,
    told: str = "",
    names: Sequence[str] = (),
    **more: Tensor,
) -> None:
    """Pictures under their titles; or, with what else belongs to them, arrays under the titles' first words.

    Arrays are in the data's own units.

    Args:
        parts: Images ``(n, *shape)``, or ``(rows, columns, *shape)``, by title.
        path: The .png or .npz.
        spec: Of the data; None: a model put together by hand gives it as it is.
        across: Titles side by side.
        told: What they are of.
        names: For the arrays alone: what each of n examples is called.
        **more: For the arrays alone.
    """
    from ..pictures.sheets import sheet
    from ..views.samples import save_picture

    if path.suffix == ".npz":
        from ..data.transform import in_data_units

        own = {title: in_data_units(value, spec) if spec else value for title, value in parts.items()}
        arrays = {title.split()[0]: value for title, value in own.items()} | more
        called = {"names": as_names(names)} if names else {}
        write_arrays({name: value.cpu().numpy() for name, value in arrays.items()} | called, path, told)
        return
    save_picture(sheet(parts, spec, across=across), path)
    print_written(path, told)


def print_written(path: Path, told: str) -> None:
    """Where something was written, and what it is of."""
    print(f"{path}: {told}" if told else path)


def as_names(names: Sequence[str]) -> Any:
    """Names as an array of text, which is read without a pickle.

    Example:
        >>> as_names(["a.png", "b.png"]).dtype.kind
        'U'
    """
    import numpy as np

    return np.array(names, dtype=np.str_)


def write_arrays(arrays: dict[str, Any], path: Path, told: str = "") -> None:
    """Arrays in an .npz file, all of it or nothing; told is what they are of."""
    import numpy as np

    from ..checkpoint import write_atomically

    def save(temporary: str) -> None:
        with Path(temporary).open("wb") as file:
            np.savez_compressed(file, **arrays)

    write_atomically(path, save)
    what = ", ".join(f"{name} {tuple(value.shape)}" for name, value in arrays.items())
    print_written(path, f"{told}; {what}" if told else what)


def print_json(value: object) -> None:
    """Any value as JSON."""
    print(json.dumps(value, indent=2, default=str))


def print_pairs(pairs: dict[str, Any]) -> None:
    """Names and values as two columns."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in pairs.items():
        text = ", ".join(f"{k} {_brief(v)}" for k, v in value.items()) if isinstance(value, dict) else _brief(value)
        table.add_row(f"[bold]{escape(name)}[/bold]", escape(text))
    Console(highlight=False).print(table)


def _brief(value: Any) -> str:
    """A value in words; of many numbers, the first."""
    many = isinstance(value, tuple | list) and len(value) > 8 and all(isinstance(one, float) for one in value)
    return f"{str(list(value[:8]))[:-1]}, ... {len(value):,} numbers]" if many else str(value)
