"""What a report says, and in which order."""

from __future__ import annotations

from pathlib import Path

from ..checkpoint import write_atomically
from ..data import Data
from ..models.latent import LatentVariableModel
from . import diagnosis, page, surprise, tables, visuals
from .latent_map import latent_map
from .material import Material, gather

__all__ = ["write_report"]


def write_report(
    run: str | Path,
    *,
    data: Data | str | Path | None = None,
    model: LatentVariableModel | None = None,
    k: int | None = None,
    device: str = "auto",
    seed: int = 0,
) -> Path:
    """Writes ``report.html`` into a run folder: one page that needs nothing but itself.

    It shows ``evaluation.json`` where that is of the run's weights and its whole test split; otherwise it evaluates,
    on so many test examples as take a few minutes at most, and writes that file if those are all.

    Args:
        run: The run folder.
        data: Other data than the run's own, or where that is now; ``evaluation.json`` is then left alone.
        model: For a model put together by hand, one of the same parts.
        k: Importance samples; default: as in ``evaluation.json``, or as many as each example needs.
        device: Where to compute: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        seed: Seed of all noise, of the pictures and of an evaluation that it makes.

    Returns:
        The page.

    Raises:
        CheckpointError: If the folder holds no complete run, or the page cannot be written.
        DataError: If the run's data cannot be loaded.
        UsageError: If the data is not known, has changed since the run was trained, or does not fit the model, or
            there is no such device.

    Example:
        >>> import tempfile, tightbound as tb
        >>> data, run = tb.load_data("digits"), tempfile.mkdtemp()
        >>> _ = tb.train(tb.recipes.VAE(latent_dim=2).build(data.spec), data, steps=3, out=run)
        >>> write_report(run, k=2).name
        'report.html'
    """
    m = gather(run, data, model, k, device=device, seed=seed)
    rows = tables.comparison(m)
    numbers = tables.evaluation(m) + page.tag("h3", "Compared with baselines") + tables.comparison_table(m, rows)
    latent, told = m.codes.shape[1] > 0, surprise.told(m)
    sections = [
        ("Evaluation", numbers),
        *([("Diagnosis", diagnosis.section(m)), ("Reconstructions", visuals.reconstructions(m))] if latent else []),
        ("Samples", visuals.samples(m)),
        *(_of_latents(m, told) if latent else []),
        ("Single examples", surprise.examples(m, told)),
        ("Training", visuals.curves(m)),
        ("Configuration", tables.configuration(m)),
        ("How to reproduce it", tables.reproduction(m)),
    ]
    title = f"{tables.recipe_name(m)} on {m.spec.name}"
    text = page.page(title, tables.heading(m, rows), sections)
    write_atomically(m.folder.report, lambda temporary: Path(temporary).write_text(text, "utf8", "replace"))
    return m.folder.report


def _of_latents(m: Material, told: surprise.Told | None) -> list[tuple[str, str]]:
    return [
        ("Interpolations", visuals.interpolations(m)),
        ("Traversals", visuals.traversals(m)),
        ("Latent map", latent_map(m, told)),
        ("Latent dimensions", visuals.activity(m)),
    ]
