"""Waves of a vector show a network edges that a smooth function misses."""

import torch
from torch.nn import functional as F

from tightbound.networks.denoising import VectorDenoiser


def trained_error(waves: bool) -> float:
    torch.manual_seed(0)
    network = VectorDenoiser(2, hidden=64, waves=waves)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    error = torch.zeros(())
    for _ in range(150):
        z = 4 * torch.rand(256, 2) - 2
        target = (z.floor().sum(1, keepdim=True) % 2 - 0.5).expand(-1, 2)
        error = F.mse_loss(network(z, torch.zeros(256)), target)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    return error.item()


def test_a_checkerboard_is_learned_twice_as_well_with_waves() -> None:
    assert trained_error(waves=True) < 0.5 * trained_error(waves=False)
