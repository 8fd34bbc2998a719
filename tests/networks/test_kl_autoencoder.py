"""The networks of latent diffusion have the names, and compute the outputs, of diffusers."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from tightbound.errors import UsageError
from tightbound.networks.kl_autoencoder import Architecture, KLDecoder, KLEncoder

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    diffusers: Any = pytest.importorskip("diffusers", exc_type=ImportError)
    AutoencoderKL, VQModel = diffusers.AutoencoderKL, diffusers.VQModel

CASES = {
    "factor 2": (3, 4, Architecture((8, 16), groups=4)),
    "factor 4, two layers": (3, 8, Architecture((8, 16, 16), layers=2, groups=8)),
    "factor 8, grey": (1, 4, Architecture((8, 8, 16, 16), groups=2)),
    "factor 32, RGBA": (4, 32, Architecture((8,) * 6, groups=4)),
    "attention in stages": (3, 5, Architecture((8, 16, 24), groups=8, attention=(1, 2))),
    "no attention": (3, 4, Architecture((8, 16), groups=4, mid_attention=False)),
}


def theirs(channels: int, latents: int, sizes: Architecture, **more: Any) -> Any:
    kinds = ["Attn" if level in sizes.attention else "" for level in range(len(sizes.channels))]
    return (
        AutoencoderKL(
            in_channels=channels,
            out_channels=channels,
            down_block_types=tuple(f"{kind}DownEncoderBlock2D" for kind in kinds),
            up_block_types=tuple(f"{kind}UpDecoderBlock2D" for kind in kinds[::-1]),
            block_out_channels=sizes.channels,
            layers_per_block=sizes.layers,
            latent_channels=latents,
            norm_num_groups=sizes.groups,
            mid_block_add_attention=sizes.mid_attention,
            **more,
        )
        .double()
        .eval()
    )


def states(encoder: nn.Module, decoder: nn.Module) -> dict[str, torch.Tensor]:
    return {**encoder.state_dict(), **decoder.state_dict()}


def ours(channels: int, latents: int, sizes: Architecture, sides: tuple[int, int], **more: Any) -> Any:
    encoder = KLEncoder(channels, 2 * latents, sizes, centred=False, **more)
    decoder = KLDecoder(latents, channels, sides, sizes, centred=False, **more)
    return encoder.double(), decoder.double()


@pytest.mark.parametrize("case", CASES)
def test_a_state_of_diffusers_gives_the_same_outputs(case: str) -> None:
    channels, latents, sizes = CASES[case]
    sides = (2 * sizes.factor, 3 * sizes.factor)
    reference, (encoder, decoder) = theirs(*CASES[case]), ours(*CASES[case], sides)
    state = reference.state_dict()
    assert set(states(encoder, decoder)) == set(state)
    for part in (encoder, decoder):
        part.load_state_dict({name: state[name] for name in part.state_dict()}, strict=True)
    x = torch.rand(2, channels, *sides, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        moments = encoder(x)
        torch.testing.assert_close(moments, reference.encode(x).latent_dist.parameters, rtol=0, atol=1e-10)
        z = moments[:, :latents]
        torch.testing.assert_close(decoder(z), reference.decode(z).sample, rtol=0, atol=1e-10)


def test_a_state_of_ours_loads_strictly_in_diffusers() -> None:
    case = CASES["attention in stages"]
    encoder, decoder = ours(*case, (8, 8))
    reference = theirs(*case)
    reference.load_state_dict(states(encoder, decoder), strict=True)
    z = torch.randn(2, case[1], 2, 2, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(decoder(z), reference.decode(z).sample, rtol=0, atol=1e-10)


def test_without_the_1x1_convolutions() -> None:
    reference = theirs(*CASES["factor 2"], use_quant_conv=False, use_post_quant_conv=False)
    assert set(states(*ours(*CASES["factor 2"], (8, 8), embedded=0))) == set(reference.state_dict())


def test_a_vq_model_has_a_narrower_codebook() -> None:
    sizes = Architecture((8, 16), groups=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = VQModel(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 16),
            latent_channels=6,
            norm_num_groups=4,
            vq_embed_dim=3,
            num_vq_embeddings=7,
        )
        reference = reference.double().eval()
    encoder = KLEncoder(3, 6, sizes, 3, centred=False).double()
    decoder = KLDecoder(6, 3, (8, 8), sizes, 3, centred=False).double()
    state = reference.state_dict()
    assert set(state) - set(states(encoder, decoder)) == {"quantize.embedding.weight"}
    for part in (encoder, decoder):
        part.load_state_dict({name: state[name] for name in part.state_dict()}, strict=True)
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), reference.encode(x).latents, rtol=0, atol=1e-10)
        z = torch.randn(2, 3, 4, 4, dtype=torch.float64)
        decoded = reference.decode(z, force_not_quantize=True).sample
        torch.testing.assert_close(decoder(z), decoded, rtol=0, atol=1e-10)


def test_images_of_unit_range_are_those_of_the_formats() -> None:
    channels, latents, sizes = CASES["factor 2"]
    plain_encoder, plain_decoder = ours(channels, latents, sizes, (4, 4))
    encoder, decoder = KLEncoder(channels, 2 * latents, sizes), KLDecoder(latents, channels, (4, 4), sizes)
    encoder.load_state_dict(plain_encoder.state_dict())
    decoder.load_state_dict(plain_decoder.state_dict())
    x, z = torch.rand(2, channels, 4, 4).double(), torch.randn(2, latents, 2, 2).double()
    encoder, decoder = encoder.double(), decoder.double()
    torch.testing.assert_close(encoder(x), plain_encoder(2 * x - 1))
    torch.testing.assert_close(2 * decoder(z) - 1, plain_decoder(z))


def test_sides_that_the_factor_does_not_divide_are_padded_and_cropped() -> None:
    channels, latents, sizes = CASES["factor 8, grey"]
    encoder, decoder = KLEncoder(channels, 2 * latents, sizes), KLDecoder(latents, channels, (30, 17), sizes)
    x = torch.rand(2, 1, 30, 17)
    assert sizes.grid(30, 17) == (4, 3)
    assert encoder(x).shape == (2, 8, 4, 3)
    assert decoder(torch.zeros(2, 4, 4, 3)).shape == x.shape
    whole = torch.cat([x, x[..., -1:, :].expand(-1, -1, 2, -1)], dim=-2)
    whole = torch.cat([whole, whole[..., -1:].expand(-1, -1, -1, 7)], dim=-1)
    torch.testing.assert_close(encoder(x), encoder(whole))


def test_checkpointing_changes_no_gradient() -> None:
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        sizes = Architecture((8, 16), groups=4, checkpointing=checkpointing)
        decoder = KLDecoder(4, 3, (8, 8), sizes)
        decoder(torch.randn(2, 4, 4, 4)).square().sum().backward()
        found.append([p.grad for p in decoder.parameters()])
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_groups_must_divide_the_channels() -> None:
    with pytest.raises(UsageError, match="groups"):
        Architecture((8, 12), groups=8)
