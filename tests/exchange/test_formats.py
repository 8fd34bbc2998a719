"""Autoencoders go to diffusers and come back, and those of latent-diffusion come in."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tightbound as tb
from tightbound.cli.main import main
from tightbound.data import DataSpec
from tightbound.errors import CheckpointError, UsageError
from tightbound.exchange import export_autoencoder, read_autoencoder
from tightbound.exchange.autoencoder import write_run
from tightbound.exchange.compvis import family_of
from tightbound.exchange.diffusers import CONFIG, WEIGHTS
from tightbound.recipes import VAE, KLAutoencoder, VQAutoencoder

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    diffusers: Any = pytest.importorskip("diffusers", exc_type=ImportError)
    AutoencoderKL, VQModel = diffusers.AutoencoderKL, diffusers.VQModel

SPEC = DataSpec("rgb", (3, 16, 24), levels=256)
SMALL: dict[str, Any] = {"factor": 4, "channels": (8, 8, 16), "groups": 4, "attention": (2,)}


def measured(recipe: Any, spec: DataSpec = SPEC) -> Any:
    """A model with latents far from mean 0 and deviation 1."""
    torch.manual_seed(0)
    model = recipe.build(spec).eval()
    with torch.no_grad():
        model.posterior.network.quant_conv.weight.mul_(3)
        model.posterior.network.quant_conv.bias.add_(torch.linspace(-2, 2, 2 * recipe.latent_channels))
        model.posterior.measure_latents([torch.rand(20, *spec.shape)])
    return model


def loaded(cls: Any, folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, told = cls.from_pretrained(folder, output_loading_info=True)
    assert {name: problems for name, problems in told.items() if problems} == {}
    return found.eval()


@pytest.mark.parametrize("fold", [True, False])
def test_diffusers_loads_an_export(tmp_path: Path, fold: bool) -> None:
    model = measured(KLAutoencoder(**SMALL))
    export_autoencoder(model, tmp_path, fold=fold)
    theirs = loaded(AutoencoderKL, tmp_path)
    x = torch.rand(30, 3, 16, 24)
    statistics = model.posterior.statistics
    mean, std = statistics.mean[:, None, None].float(), statistics.std[:, None, None].float()
    with torch.no_grad():
        q, p = theirs.encode(2 * x - 1).latent_dist, model.posterior(x)
        if fold:
            torch.testing.assert_close(q.mean, (p.mean - mean) / std, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(q.std, p.stddev / std, rtol=1e-5, atol=1e-5)
            assert theirs.config["scaling_factor"] == 1.0
            z = (q.mean, q.std)
            total = (z[0].var((0, 2, 3)) + z[1].square().mean((0, 2, 3))).sqrt()
            torch.testing.assert_close(total, torch.ones(4), rtol=0.2, atol=0)
            torch.testing.assert_close(z[0].mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=0.2)
        else:
            torch.testing.assert_close(q.mean, p.mean, rtol=1e-5, atol=1e-5)
            assert theirs.config["latents_mean"] == pytest.approx(statistics.mean.tolist())
            assert theirs.config["latents_std"] == pytest.approx(statistics.std.tolist())
            assert theirs.config["scaling_factor"] == 1.0
        mine = model.likelihood(p.mean).mean
        torch.testing.assert_close((theirs.decode(q.mean).sample + 1) / 2, mine, rtol=0, atol=1e-5)


def test_a_vq_export(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = VQAutoencoder(**SMALL, codes=16).build(SPEC).eval()
    model.posterior.quantizers[0].started.fill_(True)
    export_autoencoder(model, tmp_path)
    theirs = loaded(VQModel, tmp_path)
    x = torch.rand(2, 3, 16, 24)
    with torch.no_grad():
        latents = theirs.encode(2 * x - 1).latents
        torch.testing.assert_close(latents, model.posterior.network(x), rtol=0, atol=1e-5)
        mine = model.likelihood(model.posterior(x).mean).mean
        torch.testing.assert_close((theirs.decode(latents).sample + 1) / 2, mine, rtol=0, atol=1e-5)
    back: Any = read_autoencoder(tmp_path).model(tmp_path)
    assert torch.equal(back.posterior.codes_of(latents)[0], model.posterior.codes_of(latents)[0])


def test_without_1x1_convolutions_the_statistics_are_fields(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = KLAutoencoder(**SMALL, pointwise=False).build(SPEC).eval()
    model.posterior.measure_latents([torch.rand(20, *SPEC.shape)])
    export_autoencoder(model, tmp_path)
    theirs = loaded(AutoencoderKL, tmp_path)
    assert theirs.config["latents_std"] == pytest.approx(model.posterior.statistics.std.tolist())
    assert not read_autoencoder(tmp_path).recipe.pointwise


def test_a_folder_of_diffusers_is_read(tmp_path: Path) -> None:
    torch.manual_seed(1)
    kinds = ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"), ("AttnUpDecoderBlock2D", "UpDecoderBlock2D")
    options: dict[str, Any] = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 2}
    theirs = AutoencoderKL(down_block_types=kinds[0], up_block_types=kinds[1], sample_size=8, **options).eval()
    theirs.save_pretrained(tmp_path / "vae")
    found = read_autoencoder(tmp_path)
    model: Any = found.model(tmp_path)
    x = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        q = theirs.encode(2 * x - 1).latent_dist
        torch.testing.assert_close(model.posterior(x).mean, q.mean, rtol=0, atol=1e-5)
        torch.testing.assert_close(model.posterior(x).stddev, q.std, rtol=0, atol=1e-5)
        decoded = (theirs.decode(q.mean).sample + 1) / 2
        torch.testing.assert_close(model.likelihood(q.mean).mean, decoded, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.posterior.statistics.std, torch.full((4,), 1 / 0.18215, dtype=torch.float64))


def test_an_incomplete_folder_names_what_is_missing(tmp_path: Path) -> None:
    export_autoencoder(measured(KLAutoencoder(**SMALL)), tmp_path)
    state = load_file(tmp_path / WEIGHTS)
    gone = state.pop("decoder.conv_norm_out.bias")
    save_file({**state, "other": gone}, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match="does not fit") as told:
        read_autoencoder(tmp_path).model(tmp_path)
    assert "missing: decoder.conv_norm_out.bias; unexpected: other" in str(told.value)


def test_another_model_is_named(tmp_path: Path) -> None:
    export_autoencoder(measured(KLAutoencoder(**SMALL)), tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps({**config, "_class_name": "AutoencoderDC"}))
    with pytest.raises(CheckpointError, match="another kind of model") as told:
        read_autoencoder(tmp_path)
    assert "AutoencoderDC" in str(told.value)
    (tmp_path / CONFIG).write_text(json.dumps({**config, "scaling_factor": 0}))
    with pytest.raises(CheckpointError, match="zero"):
        read_autoencoder(tmp_path)


def test_a_dead_channel_is_told_and_one_without_scale_refused(tmp_path: Path) -> None:
    model = measured(KLAutoencoder(**SMALL))
    model.posterior.statistics.between[1] = 0.0
    assert any("channel 1 tells nothing" in said for said in export_autoencoder(model, tmp_path / "a"))
    model.posterior.statistics.within[1] = 0.0
    with pytest.raises(UsageError, match="cannot be scaled"):
        export_autoencoder(model, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    with pytest.raises(UsageError, match="latent diffusion"):
        export_autoencoder(VAE(latent_dim=2).build(DataSpec("digits", (1, 8, 8), levels=17)), tmp_path / "c")


# -- latent-diffusion -------------------------------------------------------------------------------------------------


def first_stage(state: dict[str, torch.Tensor], resolutions: int) -> dict[str, torch.Tensor]:
    """A state of diffusers by the names of latent-diffusion, written out by hand and not by the code under test."""
    words = {
        ".resnets.": ".block.",
        ".attentions.": ".attn.",
        "conv_shortcut": "nin_shortcut",
        ".downsamplers.0.": ".downsample.",
        ".upsamplers.0.": ".upsample.",
        ".mid_block.resnets.0.": ".mid.block_1.",
        ".mid_block.resnets.1.": ".mid.block_2.",
        ".mid_block.attentions.0.": ".mid.attn_1.",
        "conv_norm_out": "norm_out",
        "group_norm": "norm",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
        "to_out.0": "proj_out",
        "down_blocks": "down",
    }
    order = sorted(words, key=len, reverse=True)
    found = {}
    for name, tensor in state.items():
        new = name
        for level in range(resolutions):
            new = new.replace(f"up_blocks.{level}.", f"up.{resolutions - 1 - level}.")
        for word in order:
            new = new.replace(word, words[word])
        attention = ".attn" in new and new.endswith("weight") and ".norm." not in new
        found[new] = tensor[:, :, None, None] if attention else tensor
    return found


KINDS = {
    "kl-f4": KLAutoencoder(factor=4, latent_channels=3, channels=(32, 64, 64), groups=32, layers=2),
    "kl-f8": KLAutoencoder(factor=8, latent_channels=4, channels=(32, 64, 64, 64), groups=32),
    "kl-f16": KLAutoencoder(factor=16, latent_channels=16, channels=(32, 32, 32, 64, 64), groups=32, attention=(16,)),
    "kl-f32": KLAutoencoder(
        factor=32, latent_channels=8, channels=(32, 32, 32, 32, 64, 64), groups=32, attention=(16, 32)
    ),
    "vq-f4": VQAutoencoder(factor=4, latent_channels=3, channels=(32, 32, 64), groups=32, codes=64),
    "vq-f16": VQAutoencoder(
        factor=16, latent_channels=8, channels=(32, 32, 32, 32, 64), groups=32, attention=(16,), codes=32
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_a_first_stage_of_latent_diffusion(tmp_path: Path, kind: str, prefix: str) -> None:
    recipe: Any = KINDS[kind]
    torch.manual_seed(0)
    model: Any = recipe.build(DataSpec("rgb", (3, 64, 64), levels=256)).eval()
    state = {**model.posterior.network.state_dict(), **model.likelihood.network.state_dict()}
    theirs = first_stage(state, recipe.resolutions)
    if kind.startswith("vq"):
        theirs["quantize.embedding.weight"] = model.posterior.quantizers[0].codebook
    else:
        theirs["loss.logvar"] = torch.tensor(-2.0)
    theirs["loss.discriminator.main.0.weight"] = torch.zeros(4, 3, 4, 4)
    others = {"model.diffusion_model.x": torch.zeros(1)} if prefix else {}
    torch.save({"state_dict": {**others, **{prefix + name: t for name, t in theirs.items()}}}, tmp_path / "m.ckpt")
    found = read_autoencoder(tmp_path / "m.ckpt")
    assert found.recipe.architecture == recipe.architecture
    assert "loss.discriminator.main.0.weight" in found.loss
    back: Any = found.model("m.ckpt")
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(back.posterior.network(x), model.posterior.network(x))
        z = torch.randn(1, *model.likelihood.input_shape)
        assert torch.equal(back.likelihood.network.of_sides((64, 64))(z), model.likelihood(z).mean)
    if kind.startswith("kl"):  # a scale of exp(-2) for images in [-1, 1]
        assert back.likelihood.log_scale.exp().item() == pytest.approx(0.5 * torch.tensor(-2.0).exp().item())
    else:
        assert torch.equal(back.posterior.quantizers[0].codebook, model.posterior.quantizers[0].codebook)


def test_checkpoints_of_other_families_are_named(tmp_path: Path) -> None:
    torch.save({"model.diffusion_model.input_blocks.0.weight": torch.zeros(2)}, tmp_path / "unet.ckpt")
    with pytest.raises(CheckpointError, match="not a first stage") as told:
        read_autoencoder(tmp_path / "unet.ckpt")
    assert "denoiser" in str(told.value)
    assert family_of({"text_model.embeddings": None}) == "a CLIP text encoder"
    assert family_of({"abc": None}).startswith("an unknown model")


# -- commands ---------------------------------------------------------------------------------------------------------

TRAIN = ["--steps", "3", "--batch-size", "16", "--no-pictures", "--device", "cpu"]


def test_from_images_to_diffusers_and_back_and_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, folder, again, tuned = (str(tmp_path / name) for name in ("run", "exported", "again", "tuned"))
    small = ["--factor", "2", "--channels", "8", "16"]
    assert main(["train", "kl-autoencoder", "--data", "digits", *small, *TRAIN, "--out", run]) == 0
    assert main(["export", run, "--to", "diffusers", folder]) == 0
    assert "mean 0 and standard deviation 1" in capsys.readouterr().out
    assert main(["export", run, "--to", "diffusers", folder]) == 2
    assert "already exists" in capsys.readouterr().err
    loaded(AutoencoderKL, Path(folder))
    assert main(["import", folder, "--out", again, "--image-size", "8"]) == 0
    assert main(["evaluate", again, "--data", "digits", "--limit", "8", "--budget", "0", "-k", "2"]) == 2  # 17 levels
    words = ["train", "kl-autoencoder", "--data", "digits", "--init", folder, "--freeze", "encoder"]
    assert main([*words, *TRAIN, "--out", tuned]) == 0
    first, last = (tb.load(path) for path in (again, tuned))
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        before, after = first.posterior(x), last.posterior(x)
    assert torch.equal(before.mean, after.mean)
    assert torch.equal(before.stddev, after.stddev)
    pairs = zip(first.likelihood.parameters(), last.likelihood.parameters(), strict=True)
    changed = [not torch.equal(p, q) for p, q in pairs]
    assert all(changed)
    assert main([*words[:4], "--init", folder, "--factor", "4", *TRAIN, "--out", str(tmp_path / "no")]) != 0


def test_a_run_is_a_start(tmp_path: Path) -> None:
    data = tb.load_data("digits")
    for recipe in (KLAutoencoder(factor=2, channels=(8, 8)), VQAutoencoder(factor=2, channels=(8, 8), codes=8)):
        name = type(recipe).__name__
        options: dict[str, Any] = {"steps": 3, "batch_size": 16, "pictures": False, "device": "cpu"}
        model = recipe.build(data.spec)
        tb.train(model, data, out=tmp_path / name, **options)
        tuned = dataclasses.replace(recipe, init=str(tmp_path / name), freeze="encoder").build(data.spec)
        tb.train(tuned, data, out=tmp_path / f"{name}-tuned", **options)
        one, other = tb.load(tmp_path / name), tb.load(tmp_path / f"{name}-tuned")
        x = data.test.batch(torch.arange(20), "cpu").x
        with torch.no_grad():
            assert torch.equal(one.posterior(x).mean, other.posterior(x).mean)
            assert not torch.equal(
                one.likelihood(one.posterior(x).mean).mean, other.likelihood(one.posterior(x).mean).mean
            )


def test_freezing_needs_a_start() -> None:
    with pytest.raises(UsageError, match="frozen"):
        KLAutoencoder(freeze="encoder")


def test_a_tuned_decoder_keeps_the_latents_that_others_rely_on(tmp_path: Path) -> None:
    data = tb.load_data("digits")
    first = KLAutoencoder(**SMALL).build(data.spec)
    first.posterior.statistics.assume(torch.full((4,), 0.1), torch.full((4,), 5.0))
    write_run(first, tmp_path / "first")
    tuned = dataclasses.replace(first.recipe, init=str(tmp_path / "first"), freeze="encoder").build(data.spec)
    tb.train(tuned, data, steps=2, out=tmp_path / "tuned", pictures=False)
    kept = tb.load(tmp_path / "tuned").posterior.statistics
    assert torch.equal(kept.std, first.posterior.statistics.std)
    assert torch.equal(kept.mean, first.posterior.statistics.mean)


@pytest.mark.parametrize(
    ("mean", "std"), [([0.0] * 3, [1.0] * 3), ([0.0] * 4, [1.0, 1.0, 0.0, 1.0]), ([math.nan] * 4, [1.0] * 4)]
)
def test_statistics_that_do_not_fit_are_refused(tmp_path: Path, mean: list[float], std: list[float]) -> None:
    export_autoencoder(KLAutoencoder(**SMALL).build(SPEC), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"latents_mean": mean, "latents_std": std}))
    with pytest.raises(CheckpointError, match="statistics of the latents"):
        read_autoencoder(tmp_path)


def test_fields_of_statistics_scale_once(tmp_path: Path) -> None:
    model = KLAutoencoder(**SMALL).build(SPEC)
    model.posterior.statistics.assume(torch.full((4,), 0.1), torch.full((4,), 5.0))
    export_autoencoder(model, tmp_path, fold=False)
    assert json.loads((tmp_path / "config.json").read_text())["scaling_factor"] == 1.0
    found = read_autoencoder(tmp_path)
    assert found.std is not None
    assert found.std.tolist() == pytest.approx([5.0] * 4)


def test_values_in_another_range_are_refused_and_told(tmp_path: Path) -> None:
    export_autoencoder(KLAutoencoder(**SMALL).build(SPEC), tmp_path / "images")
    floats = KLAutoencoder(**SMALL).build(dataclasses.replace(SPEC, levels=None))
    with pytest.raises(UsageError, match="another range"):
        read_autoencoder(tmp_path / "images").load_into(floats, "images")
    assert any("values as they are" in each for each in export_autoencoder(floats, tmp_path / "floats"))
