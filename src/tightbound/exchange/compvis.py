"""First-stage checkpoints of latent-diffusion and taming-transformers, translated to the names of diffusers.

All sizes but the groups of the normalisation, which those repositories fix at 32, are read from the shapes of tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CheckpointError, reading
from ..recipes import KLAutoencoder, VQAutoencoder
from ..recipes.kl_autoencoder import GridAutoencoder
from .autoencoder import CODEBOOK, Imported
from .inert import read_tensors

__all__ = ["family_of", "read_compvis", "renamed"]

GROUPS = 32
FIRST_STAGE = "first_stage_model."
"""Prefix of the first stage in the file of a complete latent diffusion model."""
LOSS, LOG_SCALE = "loss.", "loss.logvar"
SIZE = 256
"""The side of an image is not in such a file."""

_WORDS = {
    "block": "resnets",
    "nin_shortcut": "conv_shortcut",
    "downsample": "downsamplers.0",
    "upsample": "upsamplers.0",
    "norm_out": "conv_norm_out",
}
_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_FAMILIES = {
    "encoder.down_blocks.": "an autoencoder of diffusers: import its folder, with config.json",
    "model.diffusion_model.": "the denoiser of a latent diffusion model, without its first stage",
    "down_blocks.": "a denoising U-Net of diffusers",
    "transformer_blocks.": "a diffusion transformer",
    "text_model.": "a CLIP text encoder",
    "visual.": "a CLIP model",
    "features.": "a classifier, such as VGG",
    "encoder.layers.": "a transformer or a tiny autoencoder",
    "transformer.": "a transformer",
    "posterior.": "a run of tightbound: give its folder",
}


def read_compvis(path: Path) -> Imported:
    """The first stage in a checkpoint of latent-diffusion or taming-transformers.

    Args:
        path: A ``.ckpt`` or ``.pt`` file, of which nothing is run, or a ``.safetensors`` file.

    Raises:
        CheckpointError: If it is damaged, or of another family of models.
    """
    tensors = read_tensors(path)
    if any(name.startswith(FIRST_STAGE) for name in tensors):
        tensors = {name[len(FIRST_STAGE) :]: t for name, t in tensors.items() if name.startswith(FIRST_STAGE)}
    own = {name: t for name, t in tensors.items() if name.startswith(("encoder.", "decoder.", "quant_conv."))}
    if not any(name.startswith("encoder.down.") for name in own):
        raise CheckpointError(
            f"{path} is not a first stage of latent diffusion.",
            got=f"tensors of {family_of(tensors)}",
            expected="encoder.down..., decoder.up... and quant_conv",
        )
    with reading(path, CheckpointError, expected="all tensors of a first stage"):
        own |= {name: t for name, t in tensors.items() if name.startswith(("post_quant_conv.", "quantize."))}
        return _imported(path, own, {name: t for name, t in tensors.items() if name.startswith(LOSS)})


def family_of(names: Mapping[str, object]) -> str:
    """The kind of model that the names of tensors look like.

    Args:
        names: The tensors by name.

    Example:
        >>> family_of({"features.0.weight": None})
        'a classifier, such as VGG'
    """
    for start, family in _FAMILIES.items():
        if any(name.startswith(start) for name in names):
            return family
    return f"an unknown model ({', '.join(sorted(names)[:3])}, ...)"


def _imported(path: Path, own: dict[str, Tensor], loss: dict[str, Tensor]) -> Imported:
    recipe = _recipe(path, own)
    state = dict[str, Tensor]()
    for name, tensor in own.items():
        new = renamed(name, recipe.resolutions)
        linear = ".attentions." in new and tensor.dim() == 4
        state[new] = (tensor[:, :, 0, 0] if linear else tensor).float()
    scale = loss[LOG_SCALE].exp().item() / 2 if LOG_SCALE in loss else None  # of images in [-1, 1]
    return Imported(recipe, own["encoder.conv_in.weight"].shape[1], SIZE, state, scale=scale, loss=loss)


def _recipe(path: Path, own: dict[str, Tensor]) -> GridAutoencoder:
    levels = 1 + max(int(found[1]) for name in own if (found := re.match(r"encoder\.down\.(\d+)\.", name)))
    blocks = {name.split(".")[4] for name in own if name.startswith("encoder.down.0.block.")}
    latent, codes = own["decoder.conv_in.weight"].shape[1], own.get(CODEBOOK)
    embedded = own["post_quant_conv.weight"].shape[1]
    if embedded != latent:
        raise CheckpointError(
            f"{path} has an embedding of another width than its latent, for which the format has no place.",
            got=f"embed_dim {embedded}, z_channels {latent}",
            expected="equal widths",
        )
    common: dict[str, Any] = {
        "factor": 1 << (levels - 1),
        "latent_channels": latent,
        "channels": tuple(own[f"encoder.down.{i}.block.0.conv1.weight"].shape[0] for i in range(levels)),
        "layers": len(blocks),
        "groups": GROUPS,
        "mid_attention": "encoder.mid.attn_1.q.weight" in own,
        "attention": tuple(1 << i for i in range(levels) if f"encoder.down.{i}.attn.0.q.weight" in own),
    }
    if codes is not None:
        return VQAutoencoder(**common, codes=len(codes), quantizer="gradient")
    return KLAutoencoder(**common)


def renamed(name: str, resolutions: int) -> str:
    """The name of a tensor in diffusers.

    Args:
        name: Its name in a first stage of latent-diffusion.
        resolutions: Number of resolutions: the decoder counts them from the other end.

    Example:
        >>> renamed("decoder.up.0.block.1.nin_shortcut.weight", 3)
        'decoder.up_blocks.2.resnets.1.conv_shortcut.weight'
        >>> renamed("encoder.mid.attn_1.proj_out.bias", 3)
        'encoder.mid_block.attentions.0.to_out.0.bias'
    """
    words = name.split(".")
    if words[0] not in ("encoder", "decoder"):
        return name
    part, *rest = words
    if rest[0] == "mid":
        kind, number = rest[1].split("_")
        rest = ["mid_block", "attn" if kind == "attn" else "block", str(int(number) - 1), *rest[2:]]
    elif rest[0] in ("down", "up"):
        level = int(rest[1])
        rest = [f"{rest[0]}_blocks", str(resolutions - 1 - level if rest[0] == "up" else level), *rest[2:]]
    if "attn" in rest:
        at = rest.index("attn")
        rest = [*rest[:at], "attentions", rest[at + 1], _ATTENTION[rest[at + 2]], *rest[at + 3 :]]
    return ".".join([part, *(_WORDS.get(word, word) for word in rest)])
