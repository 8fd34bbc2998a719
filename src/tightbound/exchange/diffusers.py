r"""Autoencoders in the format of diffusers: a folder with ``config.json`` and a safetensors file.

Most pipelines scale latents by one number, ``scaling_factor``, and shift them by none. So the mean m and the standard
deviation s of every channel are folded into the 1 x 1 convolutions on both sides of the latent: the exported encoder
gives :math:`(z - m) / s`, and the exported decoder takes it, so that latents have mean 0 and standard deviation 1
everywhere, and ``scaling_factor`` is 1. The reconstructions are the same.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from .. import __version__, checkpoint
from ..errors import CheckpointError, UsageError, reading
from ..models import Model
from ..posteriors import LatentStatistics
from ..recipes import KLAutoencoder, VQAutoencoder
from ..recipes.kl_autoencoder import GridAutoencoder
from ..runtime.files import write_atomically
from .autoencoder import CODEBOOK, Imported, codebook_of, frozen_format, networks_of
from .inert import read_state

__all__ = ["CONFIG", "WEIGHTS", "export_autoencoder", "folded", "read_diffusers"]

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
CLASSES: dict[str, type[GridAutoencoder]] = {"AutoencoderKL": KLAutoencoder, "VQModel": VQAutoencoder}


# -- writing ----------------------------------------------------------------------------------------------------------


def export_autoencoder(model: Model, folder: Path, *, fold: bool = True) -> list[str]:
    """Writes an autoencoder as diffusers' ``from_pretrained`` reads it.

    Args:
        model: The model of a recipe kl-autoencoder or vq-autoencoder.
        folder: Where to write ``config.json`` and the weights.
        fold: Whether the mean and scale of the latents are folded into the weights; else they are fields of the config.

    Returns:
        What was done, and warnings, as sentences.

    Raises:
        UsageError: If it is another model, or a channel has no scale.
    """
    model = frozen_format(model)
    state = {name: tensor.detach().cpu().float().contiguous() for name, tensor in networks_of(model).items()}
    likelihood: Any = model.likelihood
    config, said = _config(model.recipe, likelihood.shape), _said_of(model)
    if (codebook := codebook_of(model)) is not None:
        state[CODEBOOK] = codebook.cpu().float().contiguous()
    else:
        posterior: Any = model.posterior
        said += _with_statistics(config, state, posterior.statistics, fold)
    write_atomically(folder / WEIGHTS, lambda path: save_file(state, path, {"format": "pt"}))
    checkpoint.write_json(folder / CONFIG, config)
    return said


def _with_statistics(
    config: dict[str, Any], state: dict[str, Tensor], found: LatentStatistics, fold: bool
) -> list[str]:
    """Folds the statistics into the state, or writes them to the config."""
    if not found.known:
        return ["the latents were never measured: scaling_factor is 1, and the latents are as they are"]
    said = [f"channel {channel} tells nothing of an image: it is noise to a second stage" for channel in found.dead]
    if fold and "quant_conv.weight" in state:
        found.require_scale()
        folded(state, found.mean, found.std)
        return [f"latents have mean 0 and standard deviation 1 in each of {len(found.mean)} channels", *said]
    found.require_scale()
    config |= {"latents_mean": found.mean.tolist(), "latents_std": found.std.tolist()}  # scaled by them alone
    return ["latents are as they are: their mean and deviation are in config.json", *said]


def folded(state: dict[str, Tensor], mean: Tensor, std: Tensor) -> None:
    r"""Folds the mean and standard deviation of each latent channel into the 1 x 1 convolutions of a state, in place.

    .. math:: \mu' = (\mu - m) / s, \qquad \ell' = \ell - 2 \ln s, \qquad z = m + s z'

    Args:
        state: Tensors by the names of diffusers.
        mean: m, ``(channels,)``.
        std: s, ``(channels,)``.
    """
    n, weight, bias = len(mean), state["quant_conv.weight"].double(), state["quant_conv.bias"].double()
    means, log_variances = bias.split(n)
    state["quant_conv.bias"] = torch.cat([(means - mean) / std, log_variances - 2 * std.log()]).float()
    rows = torch.cat([1 / std, torch.ones_like(std)])
    state["quant_conv.weight"] = (weight * rows[:, None, None, None]).float()
    weight, bias = state["post_quant_conv.weight"].double(), state["post_quant_conv.bias"].double()
    state["post_quant_conv.bias"] = (bias + weight[:, :, 0, 0] @ mean).float()
    state["post_quant_conv.weight"] = (weight * std[None, :, None, None]).float()


def _config(recipe: GridAutoencoder, shape: tuple[int, ...]) -> dict[str, Any]:
    kinds = ["Attn" if (1 << level) in recipe.attention else "" for level in range(recipe.resolutions)]
    common: dict[str, Any] = {
        "_class_name": next(name for name, cls in CLASSES.items() if type(recipe) is cls),
        "_tightbound_version": __version__,
        "in_channels": shape[0],
        "out_channels": shape[0],
        "down_block_types": [f"{kind}DownEncoderBlock2D" for kind in kinds],
        "up_block_types": [f"{kind}UpDecoderBlock2D" for kind in kinds[::-1]],
        "block_out_channels": [*recipe.widths],
        "layers_per_block": recipe.layers,
        "act_fn": "silu",
        "latent_channels": recipe.latent_channels,
        "norm_num_groups": recipe.groups,
        "sample_size": max(shape[1:]),
        "scaling_factor": 1.0,
        "force_upcast": False,
        "mid_block_add_attention": recipe.mid_attention,
    }
    if common["_class_name"] == "VQModel":
        return common | {"num_vq_embeddings": recipe.architecture["codes"], "vq_embed_dim": recipe.latent_channels}
    return common | {"use_quant_conv": recipe.pointwise, "use_post_quant_conv": recipe.pointwise}


def _said_of(model: Model) -> list[str]:
    """What the format cannot say."""
    recipe, data, said = model.recipe, model.data_spec, list[str]()
    if "codes" in recipe.architecture and not recipe.pointwise:
        raise UsageError("The VQModel of diffusers has 1 x 1 convolutions.", got="--no-pointwise")
    if noise := vars(recipe).get("latent_noise"):
        said.append(f"--latent-noise {noise:g} is not in the file: its deviations are the network's own")
    if data is not None and data.levels is None:
        said.append("it takes values as they are in this data, where pipelines give images in [-1, 1]")
    if data is not None and any(side % recipe.factor for side in data.shape[1:]):
        height, width = data.shape[1:]
        said.append(
            f"images of {height} x {width} must be padded to multiples of {recipe.factor} for the exported model"
        )
    return said


# -- reading ----------------------------------------------------------------------------------------------------------


def read_diffusers(folder: Path) -> Imported:
    """An autoencoder in the format of diffusers; a folder of a pipeline is read as its ``vae``.

    Args:
        folder: The folder.

    Raises:
        CheckpointError: If it is not complete, or its config describes another kind of model.
    """
    if not (folder / CONFIG).is_file():
        folder = next((folder / each for each in ("vae", "vqvae") if (folder / each / CONFIG).is_file()), folder)
    config = checkpoint.read_json(folder / CONFIG)
    with reading(folder / CONFIG, CheckpointError, expected="the config of an AutoencoderKL or a VQModel"):
        recipe = _recipe(folder, config)
        mean, std = _statistics(config, recipe.latent_channels)
        channels, size = int(config.get("in_channels", 3)), int(config.get("sample_size", 32))
        if config.get("out_channels", 3) != channels:
            raise CheckpointError("Images and reconstructions have other channels.", got=config["out_channels"])
    size = max(recipe.factor, size - size % recipe.factor)
    return Imported(recipe, channels, size, _state(folder), mean, std)


def _state(folder: Path) -> dict[str, Tensor]:
    """The weights of a folder; attention has other names in older files."""
    if not (folder / WEIGHTS).is_file() and (pickled := folder / WEIGHTS.replace("safetensors", "bin")).is_file():
        found = read_state(pickled)
    else:
        found = checkpoint.read(folder / WEIGHTS)
    return {_current(name): tensor.float() for name, tensor in found.items()}


def _current(name: str) -> str:
    head, dot, tail = name.rpartition(".")
    before, _, last = head.rpartition(".")
    return f"{before}.{_OLDER[last]}{dot}{tail}" if last in _OLDER else name


_OLDER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _recipe(folder: Path, config: dict[str, Any]) -> GridAutoencoder:
    name = config.get("_class_name")
    if name not in CLASSES:
        raise CheckpointError(
            f"{folder} holds another kind of model.",
            got=name if isinstance(name, str) else "a config without _class_name",
            expected=" or ".join(CLASSES),
        )
    widths, kinds = tuple(config["block_out_channels"]), config["down_block_types"]
    if config.get("act_fn", "silu") != "silu" or config.get("norm_type", "group") != "group":
        got = f"{config.get('act_fn')}, {config.get('norm_type')}"
        raise CheckpointError("The networks have other layers.", got=got, expected="act_fn silu, norm_type group")
    common: dict[str, Any] = {
        "factor": 1 << (len(widths) - 1),
        "latent_channels": config.get("latent_channels", 4),
        "channels": widths,
        "layers": config.get("layers_per_block", 1),
        "groups": config.get("norm_num_groups", 32),
        "mid_attention": config.get("mid_block_add_attention", True),
        "attention": tuple(1 << level for level, kind in enumerate(kinds) if kind.startswith("Attn")),
        "pointwise": config.get("use_quant_conv", True),
    }
    if name == "AutoencoderKL":
        return KLAutoencoder(**common)
    if (width := config.get("vq_embed_dim")) not in (None, common["latent_channels"]):
        raise CheckpointError("Codes of another width than the latent are not supported.", got=width)
    return VQAutoencoder(**common, codes=config.get("num_vq_embeddings", 256), quantizer="gradient")


def _statistics(config: dict[str, Any], channels: int) -> tuple[Tensor | None, Tensor | None]:
    """The mean and standard deviation of each channel that a config states."""
    mean, std, scale = (config.get(name) for name in ("latents_mean", "latents_std", "scaling_factor"))
    if scale is not None and not 0 < scale < math.inf:
        raise CheckpointError(
            "The latents have a scaling factor of zero, or none that is a number.", got=scale, expected="above 0"
        )
    if mean is not None and std is not None:
        pair = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64) / (scale or 1.0)
        if any(each.shape != (channels,) or not each.isfinite().all() for each in pair) or not pair[1].min() > 0:
            raise CheckpointError(
                "The statistics of the latents do not fit them.",
                got=f"latents_mean {mean}, latents_std {std}",
                expected=f"{channels} finite numbers each, the deviations above 0",
            )
        return pair
    if scale is None:
        return None, None
    shift = float(config.get("shift_factor") or 0.0)
    return torch.full((channels,), shift).double(), torch.full((channels,), 1 / scale).double()
