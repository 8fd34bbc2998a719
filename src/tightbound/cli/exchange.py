"""The commands that write and read the formats of other libraries. Heavy imports are deferred until one runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from ..errors import UsageError
from .arguments import Overwrite, Run, require_positive

if TYPE_CHECKING:
    from ..runs import RunFolder

__all__ = ["export", "import_model"]


def export(
    run: Run,
    folder: Annotated[Positional[Path], arg(metavar="DIR", help="The folder to write.")],
    /,
    to: Annotated[Literal["diffusers"], arg(help="The format.")] = "diffusers",
    fold: Annotated[
        bool, arg(help="Fold mean and scale of the latents into the weights; else they are fields of config.json.")
    ] = True,
    overwrite: Overwrite = False,
) -> None:
    """Export an autoencoder of latent diffusion: AutoencoderKL.from_pretrained(DIR) loads it.

    Example: tightbound export runs/photos --to diffusers exported/photos
    """
    from ..exchange.diffusers import CONFIG, WEIGHTS, export_autoencoder
    from ..runs import RunFolder, load

    _require_unused([folder / CONFIG, folder / WEIGHTS], RunFolder(folder), overwrite)
    said = export_autoencoder(load(run), folder, fold=fold)
    print(f"{folder}: an autoencoder for {to}")
    for line in said:
        print(f"note: {line}")


def _require_unused(files: list[Path], run: RunFolder, overwrite: bool) -> None:
    """Refuses to overwrite a run, and an earlier export without ``overwrite``."""
    found = [path for path in files if path.exists()]
    if run.weights.exists() or (found and not overwrite):
        raise UsageError(
            f"{run.path} is a run." if run.weights.exists() else f"{found[0]} already exists.",
            got=run.path,
            expected="a new folder",
            remedy="Choose another folder" + ("." if run.weights.exists() else ", or overwrite it: --overwrite."),
        )


def import_model(
    path: Annotated[Positional[Path], arg(metavar="PATH", help="A folder of diffusers, or a checkpoint.")],
    /,
    out: Annotated[Path, arg(metavar="RUN", help="The run folder to write.")],
    image_size: Annotated[
        int | None, arg(help="Side of the images in pixels; default: that in the file, or 256.")
    ] = None,
) -> None:
    """Import an autoencoder of diffusers or latent-diffusion as a run; nothing in the file is executed.

    Example: tightbound import sd-vae/ --out runs/sd-vae --image-size 256
    """
    import dataclasses

    from ..exchange import read_autoencoder, write_run

    require_positive("--image-size", 1 if image_size is None else image_size)
    if (out / "config.json").exists():
        raise UsageError("The folder holds a run already.", got=out, remedy="Choose another --out.")
    found = read_autoencoder(path)
    found = found if image_size is None else dataclasses.replace(found, size=image_size)
    model = found.model(path)
    write_run(model, out)
    print(
        f"{out}: {model.origin}, {sum(p.numel() for p in model.parameters()):,} parameters, {found.size} x {found.size}"
    )
    if found.scale is None:
        print("note: the file has no scale of p(x|z): 0.1 is assumed; train with --init to learn one")
    print(f"next: tightbound evaluate {out} --data DATA; tightbound train --help for --init {out}")
