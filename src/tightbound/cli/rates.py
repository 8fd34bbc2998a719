"""The command that measures rate and distortion. Heavy imports are deferred until it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ..errors import UsageError
from .arguments import Device, Json, Overwrite, Seed, Source, SplitName, require_positive, require_writable
from .measuring import Features
from .output import examples_of, print_json, print_rows

__all__ = ["rate_distortion"]


def rate_distortion(
    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN", help="One or more run folders.")],
    /,
    data: Source = None,
    split: SplitName = None,
    limit: Annotated[int | None, arg(help="Use at most N evenly spaced images.")] = None,
    features: Features = "auto",
    out: Annotated[Path | None, arg(metavar="FILE", help="Figure to write, .png.")] = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Measure rate and distortion of images: bits per pixel of the latents under the prior, PSNR, SSIM and perceptual
    distance of their decodings, one point for each run, beside WebP without its headers.

    Example: tightbound rate-distortion runs/beta1 runs/beta4 --out rates.png
    """
    from ..reporting.comparing.rates import draw_rates, measure_rates, rate_rows

    if not runs:
        raise UsageError("Which run?", remedy="tightbound rate-distortion RUN RUN --out rates.png")
    if limit is not None:
        require_positive("--limit", limit)
    if out is not None:
        if out.suffix != ".png":
            raise UsageError("Unknown kind of file.", got=out, expected="a name that ends in .png")
        require_writable(out, overwrite, data, *runs)
    found = measure_rates(runs, data=data, split=split, limit=limit, features=features, device=device, seed=seed)
    print_json(found.json()) if json else print_rows(examples_of(found.n, found.split), rate_rows(found), found.notes)
    if out is not None:
        draw_rates(found, out)
        print(out, file=sys.stderr if json else sys.stdout)
