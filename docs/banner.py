"""Draws the README's banner from a run with a report: samples, the map of its latents, and the head of its report.

python docs/banner.py runs/demo docs/banner.png
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

import tightbound as tb
from tightbound.reporting import figures
from tightbound.reporting.maps import tsne
from tightbound.runs import load_run_data
from tightbound.runtime.randomness import fixed_noise
from tightbound.views import samples as pictures
from tightbound.views.latents import posterior_means

HEIGHT, GAP, MARGIN = 520, 28, 24
PAPER, INK, LINE = (253, 253, 252), (90, 90, 96), (205, 205, 210)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
MOST = 400_000


def samples(run: Path) -> Image.Image:
    """Means of p(x|z) at draws of the prior."""
    model = tb.load(run)
    with fixed_noise(2):
        drawn = pictures.samples(model(), 49)
    return pictures.grid(pictures.drawable(drawn["mean of p(x|z)"], model.data_spec), columns=7, side=64)


def latent_map(run: Path) -> Image.Image:
    """The codes of the test split by t-SNE, coloured by class."""
    model, test = tb.load(run), load_run_data(run).test
    points = tsne(posterior_means(model, test)[0].double().numpy())
    labels = None if test.labels is None else test.labels.numpy()
    png = figures.png(figures.scatter(points, labels, list(test.spec.classes), None))
    drawn = Image.open(io.BytesIO(png))
    paper = Image.new("RGB", drawn.size, PAPER)
    paper.paste(drawn, mask=drawn.getchannel("A"))
    return paper


def report(run: Path) -> Image.Image:
    """The head of the report, as a browser shows it."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise SystemExit(f"A browser is needed for the piece of the report: one of {', '.join(BROWSERS)}.")
    with tempfile.TemporaryDirectory() as folder:
        page, shot = (run / "report.html").resolve().as_uri(), Path(folder) / "page.png"
        size = ["--window-size=960,722", f"--screenshot={shot}", "--blink-settings=preferredColorScheme=1"]
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *size]
        subprocess.run([browser, *flags, page], check=True, capture_output=True, timeout=120)
        return Image.open(shot).convert("RGB")


def banner(parts: list[tuple[str, Image.Image]]) -> Image.Image:
    """Pictures of one height side by side, each under its title."""
    scaled = [(title, image.resize((round(image.width * HEIGHT / image.height), HEIGHT), Image.Resampling.LANCZOS))
              for title, image in parts]  # fmt: skip
    font, head = ImageFont.load_default(20), 38
    width = sum(image.width for _, image in scaled) + GAP * (len(scaled) - 1) + 2 * MARGIN
    sheet = Image.new("RGB", (width, HEIGHT + head + 2 * MARGIN), PAPER)
    draw, x = ImageDraw.Draw(sheet), MARGIN
    for title, image in scaled:
        draw.text((x, MARGIN), title, fill=INK, font=font)
        sheet.paste(image, (x, MARGIN + head))
        draw.rectangle((x - 1, MARGIN + head - 1, x + image.width, MARGIN + head + HEIGHT), outline=LINE)
        x += image.width + GAP
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    torch.manual_seed(0)
    drawn = banner(
        [("samples", samples(given.run)), ("latent space", latent_map(given.run)), ("report", report(given.run))]
    )
    drawn.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(given.out, optimize=True)
    size = given.out.stat().st_size
    if size > MOST:
        raise SystemExit(f"{given.out} has {size:,} bytes, more than {MOST:,}.")
    print(f"{given.out}: {drawn.width} x {drawn.height} pixels, {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
