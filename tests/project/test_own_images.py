"""The commands of docs/own-images.md run, on a folder as strangers have it."""

from __future__ import annotations

import re
import shlex
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tightbound.cli.main import main

PAGE = Path(__file__).parents[2] / "docs" / "own-images.md"
SMALLER = {
    "train": "--channels 8 8 8 8 --train-crop 32 --steps 4 --batch-size 8 --no-pictures --device cpu",
    "evaluate": "-k 2",
    "reconstruct": "-n 4",
}


def folder_of_a_stranger(folder: Path) -> None:
    """Images of many sizes, some grey, some transparent, in sub-folders."""
    random = np.random.default_rng(0)
    for i in range(40):
        height, width = random.integers(40, 120, 2)
        mode, channels = [("RGB", (3,)), ("L", ()), ("RGBA", (4,))][i % 3]
        pixels = random.integers(0, 256, (height, width, *channels), dtype=np.uint8)
        path = folder / f"part{i % 2}" / f"{i}.{'png' if mode == 'RGBA' else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels, mode).save(path)


@pytest.mark.filterwarnings("ignore")
def test_the_five_commands_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    diffusers: Any = pytest.importorskip("diffusers", exc_type=ImportError)
    monkeypatch.chdir(tmp_path)
    folder_of_a_stranger(tmp_path / "photos")
    block = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf8"), flags=re.DOTALL)[0]
    commands = [shlex.split(line) for line in block.strip().splitlines()]
    assert len(commands) == 5
    for words in commands:
        assert main([*words[1:], *SMALLER.get(words[1], "").split()]) == 0, capsys.readouterr().err
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vae, told = diffusers.AutoencoderKL.from_pretrained("exported/photos", output_loading_info=True)
    assert not any(told.values())
    with torch.no_grad():
        latents = vae.encode(torch.zeros(1, 3, 64, 64)).latent_dist.mean
        assert vae.decode(latents).sample.shape == (1, 3, 64, 64)
