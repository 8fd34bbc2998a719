"""Rate and distortion of runs, one point each, beside WebP."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ... import runs as run_folders
from ...data import Data
from ...evaluation import Estimate
from ...evaluation.samples.features import FeatureName, features_of
from ...evaluation.samples.rates import Point, rate_and_distortion, require_pixels, webp
from ...runs import RunFolder
from ...runtime.files import write_atomically
from ...runtime.randomness import fixed_noise
from ...spec import typed
from ...training.device import find_device
from .. import figures
from .comparison import differing_options, labels_of, same_examples
from .poster import COLORS

__all__ = ["Rates", "draw_rates", "measure_rates", "rate_rows"]

COLUMNS = ("bits per pixel", "PSNR [dB]", "SSIM", "perceptual")


@dataclass(frozen=True)
class Rates:
    """Result of :func:`measure_rates`.

    Args:
        runs: The point of each run, by its name and the options that differ from the others'.
        webp: The point of WebP at each quality.
        features: The network of the perceptual distance, as text.
        split: Name of the split.
        n: Number of images.
        seed: Seed of all noise.
    """

    runs: Mapping[str, Point]
    webp: Mapping[int, Point]
    features: str
    split: str
    n: int
    seed: int

    @property
    def notes(self) -> tuple[str, ...]:
        """How the numbers are defined."""
        return (
            "rate: E[log q(z|x) - log p(z)] / (height x width x ln 2) under the prior of the run; of a prior with only "
            "a bound an upper bound",
            "distortion: of the mean of p(x|z) at a draw of q(z|x)",
            f"perceptual distance: in {self.features}",
            "WebP: bytes of the compressed frame, without the headers of the file (12), a chunk (8) and the frame (10)",
        )

    def json(self) -> dict[str, Any]:
        """As ``tightbound rate-distortion --json`` prints it."""
        return dataclasses.asdict(self) | {"notes": self.notes}


def measure_rates(
    runs: Sequence[str | Path],
    *,
    data: Data | str | Path | None = None,
    split: str | None = None,
    limit: int | None = None,
    features: FeatureName = "auto",
    device: str = "auto",
    seed: int = 0,
) -> Rates:
    """Measures rate and distortion of runs on the same images, and of WebP.

    Args:
        runs: Run folders.
        data: Other data than the runs' own.
        split: Split of the data; default: the test split, or all of other data.
        limit: Use at most this many evenly spaced images; default: all.
        features: Where the perceptual distance is taken; a classifier is trained on the data of the first run.
        device: Where to compute.
        seed: Seed of all noise.

    Raises:
        CheckpointError: If a folder holds no complete run.
        UsageError: If the runs were trained on different data, or on no images.
        ObjectiveError: If a run has no prior.

    Example:
        >>> import tempfile, tightbound as tb
        >>> data, run = tb.load_data("digits"), tempfile.mkdtemp()
        >>> _ = tb.train(tb.recipes.VAE(latent_dim=2).build(data.spec), data, steps=3, out=run)
        >>> found = measure_rates([run], limit=20, features="efficientnet-lite0")
        >>> len(found.runs), min(found.webp), found.n
        (1, 0, 20)
    """
    folders, place = [RunFolder(Path(run)) for run in runs], find_device(device)
    options = differing_options([folder.config() for folder in folders])
    loaded, tests = same_examples(folders, data, split, limit)
    require_pixels(tests[0].spec)
    own = run_folders.load_run_data(folders[0].path) if loaded[0].new else loaded[0]
    seen = features_of(features, own, seed=seed, device=place)
    with fixed_noise():  # building a model draws initial weights
        models = [run_folders.load(folder.path).to(place) for folder in folders]
    points = [rate_and_distortion(model, test, seen, seed=seed) for model, test in zip(models, tests, strict=True)]
    names = [_name(label, each) for label, each in zip(labels_of(folders), options, strict=True)]
    lossy = webp(models[0], tests[0], seen, seed=seed)
    told = f"{seen.network} ({seen.resize})"
    return Rates(dict(zip(names, points, strict=True)), lossy, told, tests[0].name, len(tests[0]), seed)


def _name(label: str, options: Mapping[str, Any]) -> str:
    """The label of a run, with the first two options that differ."""
    told = [f"{name} {typed(value)}" for name, value in list(options.items())[:2]]
    return f"{label} ({', '.join(told)})" if told else label


def rate_rows(found: Rates) -> list[list[str]]:
    """A header, and a line for each run and each quality of WebP."""
    points = dict(found.runs) | {f"WebP {quality}": point for quality, point in found.webp.items()}
    return [["", *COLUMNS], *([name, *_cells(point)] for name, point in points.items())]


def _cells(point: Point) -> list[str]:
    values = ((point.rate, 3), (point.psnr, 2), (point.ssim, 3), (point.perceptual, 3))
    return ["–" if value is None else value.text(digits) for value, digits in values]


def draw_rates(found: Rates, path: Path) -> None:
    """PSNR and perceptual distance against the rate, as a PNG.

    Args:
        found: The points.
        path: A .png to write.
    """
    content = figures.png(rate_figure(found))
    write_atomically(path, lambda temporary: Path(temporary).write_bytes(content))


def rate_figure(found: Rates) -> Figure:
    """A panel for each distortion; the perceptual one is left out where there is none.

    Example:
        >>> one = Point(Estimate(1.0, 0.1), Estimate(30.0, 0.1), Estimate(0.9, 0.1), None)
        >>> [axes.get_ylabel() for axes in rate_figure(Rates({"a": one}, {50: one}, "pixels", "test", 5, 0)).axes]
        ['PSNR [dB]']
    """
    panels = [("PSNR [dB]", "psnr"), ("perceptual distance", "perceptual")]
    panels = panels[: 1 + all(each.perceptual for each in (*found.runs.values(), *found.webp.values()))]
    figure = figures.blank(5.0 * len(panels), 3.6)
    figure.patch.set_alpha(1)
    for place, (title, name) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), place)
        figures.styled(axes, 9)
        _panel(axes, found, name)
        axes.set_xlabel("rate [bits per pixel]")
        axes.set_ylabel(title)
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


def _panel(axes: Axes, found: Rates, name: str) -> None:
    rates, values, _ = _columns(found.webp.values(), name)
    axes.plot(rates, values, "-o", color="#808080", ms=3, lw=1.2, label="WebP without headers, by quality")
    below = (4, -7 if name == "psnr" else 3)
    for quality, rate, value in zip(found.webp, rates, values, strict=True):
        axes.annotate(
            f"{quality}",
            (rate, value),
            below,
            textcoords="offset points",
            fontsize=6,
            color="#808080",
        )
    for place, (label, point) in enumerate(found.runs.items()):
        (rate,), (value,), (error,) = _columns([point], name)
        color = COLORS[place % len(COLORS)]
        axes.errorbar(rate, value, error, point.rate.standard_error, "s", color=color, ms=6, label=label)
    if all(point.rate.value > 0 for point in (*found.runs.values(), *found.webp.values())):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")


def _columns(points: Any, name: str) -> tuple[figures.Array, figures.Array, figures.Array]:
    """Rates, distortions and their errors."""
    values = [(point.rate.value, *_both(getattr(point, name))) for point in points]
    rate, value, error = np.asarray(values, dtype=np.float64).T
    return rate, value, error


def _both(estimate: Estimate) -> tuple[float, float]:
    return estimate.value, estimate.standard_error or 0.0
