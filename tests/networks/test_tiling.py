"""Tiles give what the network gives on the whole: no seams."""

from __future__ import annotations

import pytest
import torch

from tightbound.errors import UsageError
from tightbound.networks import Architecture, KLDecoder, KLEncoder
from tightbound.networks.tiling import decode_tiled, encode_tiled

CASES = {
    "factor 2": Architecture((8, 16), groups=4),
    "factor 8": Architecture((8, 8, 16, 16), layers=2, groups=4),
    "attention in stages": Architecture((8, 16, 16), groups=4, attention=(1,)),
    "no attention": Architecture((8, 8), groups=2, mid_attention=False),
}


def off_centre(module: torch.nn.Module) -> None:
    """Weights of normalisations that are not special, and features far from mean 0."""
    for name, parameter in module.named_parameters():
        if "norm" in name:
            parameter.data += torch.rand_like(parameter)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("tile", [4, 6, 16, 1000])
def test_tiles_are_the_whole(case: str, tile: int) -> None:
    torch.manual_seed(0)
    sizes = CASES[case]
    sides = (5 * sizes.factor, 7 * sizes.factor - 1)
    encoder = KLEncoder(3, 8, sizes).double()
    decoder = KLDecoder(4, 3, sides, sizes).double()
    for network in (encoder, decoder):
        off_centre(network)
    x = torch.rand(2, 3, *sides, dtype=torch.float64)
    z = torch.randn(2, 4, 5, 7, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(encode_tiled(encoder, x, tile), encoder(x), rtol=0, atol=1e-10)
        torch.testing.assert_close(decode_tiled(decoder, z, tile), decoder(z), rtol=0, atol=1e-10)


def test_a_tile_sees_no_more_than_its_halo() -> None:
    """So that memory is that of a tile: the largest input of a convolution of full resolution."""
    sizes = Architecture((8, 8), groups=4)
    decoder = KLDecoder(4, 3, (64, 64), sizes)
    seen = []
    for convolution in decoder.modules():
        if isinstance(convolution, torch.nn.Conv2d) and convolution.kernel_size == (3, 3):
            convolution.register_forward_pre_hook(lambda _, inputs: seen.append(max(inputs[0].shape[2:])))
    decode_tiled(decoder, torch.randn(1, 4, 32, 32), tile=16)
    assert max(seen) == 34  # the upsampling of a tile of 16 and a pixel beside it


@pytest.mark.parametrize("tile", [7, 0, 1])
def test_tiles_that_cannot_be_halved_are_refused(tile: int) -> None:
    encoder = KLEncoder(3, 8, Architecture((8, 16)))
    with pytest.raises(UsageError, match="halved"):
        encode_tiled(encoder, torch.rand(1, 3, 20, 24), tile=tile)
