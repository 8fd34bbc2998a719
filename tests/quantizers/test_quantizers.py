"""Quantisers: every one keeps the contract; clustering, averages, revival and the finite grid by their closed forms."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tightbound.errors import DataError, ShapeError, UsageError
from tightbound.quantizers import FiniteScalarQuantizer, Quantized, Usage, VectorQuantizer
from tightbound.quantizers.clusters import fill, k_means, moments, nearest, spread
from tightbound.quantizers.vector import direction

DOUBLE = torch.float64
Quantizer = VectorQuantizer | FiniteScalarQuantizer
QUANTIZERS: dict[str, Callable[[], Quantizer]] = {
    "ema": lambda: VectorQuantizer(16, 4),
    "gradient": lambda: VectorQuantizer(16, 4, ema=None),
    "cosine": lambda: VectorQuantizer(16, 4, cosine=True),
    "cosine-gradient": lambda: VectorQuantizer(16, 4, cosine=True, ema=None),
    "projected": lambda: VectorQuantizer(16, 4, project=2),
    "projected-gradient": lambda: VectorQuantizer(16, 4, project=2, ema=None, cosine=True),
    "finite": lambda: FiniteScalarQuantizer((8, 5, 3), dim=4),
}
VECTOR = [name for name in QUANTIZERS if name != "finite"]


@pytest.fixture(params=QUANTIZERS)
def quantizer(request: pytest.FixtureRequest) -> Quantizer:
    quantizer = QUANTIZERS[request.param]().double()
    if isinstance(quantizer, VectorQuantizer):
        quantizer.start_from(torch.randn(8, 4, 7, 5, dtype=DOUBLE))
    return quantizer


def batch(n: int = 6) -> Tensor:
    return torch.randn(n, 4, 3, 2, dtype=DOUBLE, requires_grad=True)


def reached(value: Tensor, tensors: dict[str, Tensor]) -> set[str]:
    """The tensors that the gradient of a value reaches."""
    if not value.requires_grad:
        return set()
    gradients = torch.autograd.grad(value.sum(), list(tensors.values()), allow_unused=True, retain_graph=True)
    return {name for name, g in zip(tensors, gradients, strict=True) if g is not None and g.abs().sum() > 0}


# -- the contract -----------------------------------------------------------------------------------------------------


def test_shapes_and_types(quantizer: Quantizer) -> None:
    for grid in ((3, 2), (5,), ()):
        out = quantizer(torch.randn(6, 4, *grid, dtype=DOUBLE))
        assert isinstance(out, Quantized)
        assert out.vectors.shape == (6, 4, *grid)
        assert out.codes.shape == (6, *grid)
        assert out.codes.dtype == torch.int64
        assert out.codebook_loss.shape == out.commitment_loss.shape == (6,)
        assert 0 <= out.codes.min() <= out.codes.max() < quantizer.codes


def test_vectors_are_those_of_the_codes(quantizer: Quantizer) -> None:
    z = batch()
    out = quantizer.eval()(z)
    torch.testing.assert_close(quantizer.embed(out.codes), out.vectors, rtol=0, atol=0)
    assert torch.equal(quantizer.codes_of(z), out.codes)


def test_an_example_does_not_depend_on_its_batch(quantizer: Quantizer) -> None:
    z = batch()
    whole, alone = quantizer.eval()(z), quantizer.eval()(z[2:3])
    for a, b in zip(whole, alone, strict=True):
        torch.testing.assert_close(a[2:3], b, rtol=1e-12, atol=1e-12)
    doubled = quantizer(torch.cat([z, z], dim=2))  # twice the positions: a sum, not a mean
    torch.testing.assert_close(doubled.commitment_loss, 2 * whole.commitment_loss)


def test_an_empty_batch(quantizer: Quantizer) -> None:
    out = quantizer(torch.zeros(0, 4, 3, 2, dtype=DOUBLE))
    assert out.vectors.shape == (0, 4, 3, 2)
    assert out.codes.shape == (0, 3, 2)
    assert out.commitment_loss.shape == (0,)


def test_evaluation_changes_nothing(quantizer: Quantizer) -> None:
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    quantizer.eval()(batch())
    for name, tensor in quantizer.state_dict().items():
        assert torch.equal(before[name], tensor), name


def test_state_survives(quantizer: Quantizer, request: pytest.FixtureRequest) -> None:
    for _ in range(3):
        quantizer(batch())
    other = QUANTIZERS[request.node.callspec.params["quantizer"]]().double()
    other.load_state_dict(quantizer.state_dict())
    z = batch()
    for _ in range(2):  # the second after one more step of learning
        results = []
        for each in (quantizer, other):
            torch.manual_seed(1)
            results.append(each(z))
        for a, b in zip(*results, strict=True):
            assert torch.equal(a, b)


def test_another_width_is_refused(quantizer: Quantizer) -> None:
    for z in (torch.zeros(2, 5, 3), torch.zeros(4)):
        with pytest.raises(ShapeError, match=r"\(n, 4, \*grid\)"):
            quantizer(z)


def test_codes_that_do_not_exist_are_refused(quantizer: Quantizer) -> None:
    for codes in (torch.tensor([[0, quantizer.codes]]), torch.tensor([[-1]]), torch.tensor([[0.0]])):
        with pytest.raises(UsageError):
            quantizer.embed(codes)


def test_what_is_not_finite_is_seen(quantizer: Quantizer) -> None:
    z = batch().detach()
    z[1, 2, 0, 0] = math.nan
    for call in (quantizer.codes_of, quantizer.start_from if quantizer.starts else quantizer.codes_of):
        with pytest.raises(DataError, match="not finite"):
            call(z)
    out = quantizer(z)
    assert out.vectors[1].isnan().any()
    assert out.vectors[[0, 2, 3, 4, 5]].isfinite().all()
    assert 0 <= out.codes.min() <= out.codes.max() < quantizer.codes
    assert all(tensor.isfinite().all() for tensor in quantizer.state_dict().values())


@pytest.mark.parametrize("name", QUANTIZERS)
def test_autocast_gives_the_codes_of_float32(name: str) -> None:
    quantizer, z = QUANTIZERS[name]().eval(), 3 * torch.randn(64, 4, 8, 8)
    plain = quantizer(z)
    with torch.autocast("cpu", torch.bfloat16):
        cast = quantizer(z)
        assert torch.equal(quantizer.codes_of(z), plain.codes)
        assert torch.equal(quantizer.embed(plain.codes), plain.vectors)
    for a, b in zip(cast, plain, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def test_bfloat16_from_an_encoder_is_taken_and_averaged_in_float32() -> None:
    quantizer, z = VectorQuantizer(16, 4), torch.randn(8, 4, 7, 7).bfloat16().requires_grad_()
    out = quantizer(z)
    (out.vectors.sum() + out.commitment_loss.sum()).backward()
    assert z.grad is not None
    assert out.vectors.dtype == out.commitment_loss.dtype == quantizer.averages.dtype == torch.float32


# -- what learns from what --------------------------------------------------------------------------------------------

CODEBOOK, INWARD, OUTWARD = {"codebook"}, {"inward.weight", "inward.bias"}, {"outward.weight", "outward.bias"}


@pytest.mark.parametrize("name", QUANTIZERS)
def test_each_loss_reaches_its_own_and_nothing_else(name: str) -> None:
    quantizer, z = QUANTIZERS[name]().double(), batch()
    out = quantizer(z)
    tensors = {"z": z, **dict(quantizer.named_parameters())}
    inward, outward = INWARD & set(tensors), OUTWARD & set(tensors)
    weights = torch.randn_like(out.vectors)
    assert reached(weights * out.vectors, tensors) == {"z"} | inward | outward
    assert reached(out.codebook_loss, tensors) == (CODEBOOK & set(tensors))
    assert reached(out.commitment_loss, tensors) == (set() if name == "finite" else {"z"} | inward)


@pytest.mark.parametrize("ema", [0.99, None])
def test_gradient_goes_straight_through(ema: float | None) -> None:
    quantizer, z = VectorQuantizer(16, 4, ema=ema).double(), batch()
    weights = torch.randn(z.shape, dtype=DOUBLE)
    (gradient,) = torch.autograd.grad((weights * quantizer(z).vectors).sum(), z)
    assert torch.equal(gradient, weights)


def test_losses_are_the_squared_errors() -> None:
    quantizer, z = VectorQuantizer(16, 4, ema=None).double().eval(), batch()
    out = quantizer(z)
    expected = (z - out.vectors).square().sum((1, 2, 3))
    torch.testing.assert_close(out.commitment_loss, expected)
    torch.testing.assert_close(out.codebook_loss, expected)
    (toward,) = torch.autograd.grad(out.commitment_loss.sum(), z)
    torch.testing.assert_close(toward, 2 * (z - out.vectors.detach()))


def test_directions_have_length_one_and_zero_has_none() -> None:
    quantizer, z = VectorQuantizer(16, 4, cosine=True).double(), batch().detach()
    z[0, :, 0, 0] = 0
    z.requires_grad_()
    out = quantizer(z)
    torch.testing.assert_close(out.vectors.norm(dim=1), torch.ones(6, 3, 2, dtype=DOUBLE))
    (gradient,) = torch.autograd.grad(out.vectors.square().sum() + out.commitment_loss.sum(), z)
    assert gradient.isfinite().all()
    assert gradient[0, :, 0, 0].abs().sum() == 0
    torch.testing.assert_close((gradient * z).sum(1), torch.zeros(6, 3, 2, dtype=DOUBLE))  # along z nothing changes
    scaled = quantizer.eval().codes_of(7 * z)
    assert torch.equal(scaled, quantizer.codes_of(z))
    assert torch.equal(direction(torch.zeros(2, 3)), torch.zeros(2, 3))


# -- nearest ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entries", [1, 50, 333, 10**9, None])
def test_nearest_is_brute_force(entries: int | None) -> None:
    vectors, centres = torch.randn(301, 5, dtype=DOUBLE), torch.randn(17, 5, dtype=DOUBLE)
    distances = (vectors[:, None] - centres).square().sum(-1)
    assert torch.equal(nearest(vectors, centres, entries), distances.argmin(1))


def test_cosine_nearest_is_the_largest_cosine() -> None:
    quantizer, z = VectorQuantizer(16, 4, cosine=True).double().eval(), batch()
    cosines = nn.functional.cosine_similarity(z.movedim(1, -1).unsqueeze(-2), quantizer.codebook, dim=-1)
    assert torch.equal(quantizer(z).codes, cosines.argmax(-1))


def test_moments_are_those_of_every_cluster() -> None:
    vectors, indices = torch.randn(100, 3, dtype=DOUBLE), torch.randint(7, (100,))
    total = moments(vectors, indices, 8)
    for k in range(8):
        torch.testing.assert_close(total[k, 1:], vectors[indices == k].sum(0))
        assert total[k, 0] == (indices == k).sum()


# -- starts -----------------------------------------------------------------------------------------------------------


def clusters(count: int = 12, each: int = 40, dim: int = 4) -> tuple[Tensor, Tensor]:
    """Vectors in well-separated clusters, and their means."""
    centres = 20 * torch.cartesian_prod(*[torch.arange(3.0, dtype=DOUBLE)] * dim)[torch.randperm(3**dim)[:count]]
    vectors = centres[:, None] + torch.randn(count, each, dim, dtype=DOUBLE)
    return vectors.flatten(0, 1)[torch.randperm(count * each)], vectors.mean(1)


def lexical(points: Tensor) -> Tensor:
    return torch.stack(sorted(points, key=lambda point: (point / 20).round().tolist()))


def test_k_means_finds_clusters() -> None:
    vectors, means = clusters()
    torch.testing.assert_close(lexical(k_means(vectors, 12)), lexical(means))


@pytest.mark.parametrize(("count", "n"), [(12, 10_000), (60, 10_000), (3000, 5999), (3000, 6000), (20, 39)])
def test_the_start_costs_no_more_than_it_brings(count: int, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An iteration takes at most so many distances, and none is made where there is nothing to average."""
    taken: list[int] = []

    def counted(vectors: Tensor, centres: Tensor) -> Tensor:
        taken.append(len(vectors) * len(centres))
        return nearest(vectors, centres)

    monkeypatch.setattr("tightbound.quantizers.clusters.nearest", counted)
    monkeypatch.setattr("tightbound.quantizers.clusters.WORK", 60 * 1000)
    assert k_means(torch.randn(n, 2), count, iterations=2).shape == (count, 2)
    assert bool(taken) == (n >= 2 * count and count <= 60)
    assert max(taken, default=0) <= 60 * 1000


def test_more_centres_than_rounds_are_spread_too() -> None:
    vectors, means = clusters(count=60)
    found = spread(vectors, 60, rounds=20)
    assert len(nearest(found, means).unique()) >= 55  # by chance alone about 38
    assert len(found.unique(dim=0)) == 60


def test_fewer_vectors_than_codes_are_all_codes() -> None:
    vectors = torch.randn(5, 3, dtype=DOUBLE)
    centres = k_means(vectors, 12)
    assert len(centres.unique(dim=0)) == 12
    distances = (vectors[:, None] - centres).square().sum(-1).sqrt()
    assert distances.min(1).values.max() == 0
    assert distances.min(0).values.max() < 0.1 * vectors.std()
    assert fill(vectors[:1], 4).unique(dim=0).shape == (4, 3)


def test_the_first_training_batch_starts_the_codebook_and_no_other() -> None:
    vectors, means = clusters()
    quantizer = VectorQuantizer(12, 4).double()
    quantizer.eval()(vectors)
    assert not quantizer.started
    quantizer.train()(vectors)
    assert quantizer.started
    torch.testing.assert_close(lexical(quantizer.codebook), lexical(means), rtol=1e-5, atol=1e-5)
    frozen = VectorQuantizer(12, 4, ema=None, revive=0).double()
    frozen.start_from(vectors)
    before = frozen.codebook.detach().clone()
    frozen(vectors + 5)
    assert torch.equal(frozen.codebook, before)


def test_a_start_from_data_takes_vectors() -> None:
    vectors, _ = clusters()
    quantizer = VectorQuantizer(12, 4, start="data").double()
    quantizer.start_from(vectors)
    assert (vectors[:, None] == quantizer.codebook).all(-1).any(0).all()


def test_a_batch_without_anything_finite_starts_nothing() -> None:
    quantizer = VectorQuantizer(12, 4)
    before = quantizer.codebook.clone()
    quantizer(torch.full((5, 4), math.nan))
    assert not quantizer.started
    assert torch.equal(quantizer.codebook, before)


def test_loading_an_unstarted_state_lets_it_start_again() -> None:
    fresh = VectorQuantizer(12, 4).state_dict()
    quantizer = VectorQuantizer(12, 4)
    quantizer(torch.randn(50, 4))
    quantizer.load_state_dict(fresh)
    quantizer(100 + torch.randn(50, 4))
    assert (quantizer.codebook > 50).all()


# -- averages ---------------------------------------------------------------------------------------------------------


def test_averages_are_their_closed_form() -> None:
    decay, steps = 0.9, 6
    quantizer = VectorQuantizer(8, 3, ema=decay, revive=0).double()
    quantizer.start_from(torch.randn(50, 3, dtype=DOUBLE))
    seen = []
    for _ in range(steps):
        z, before = torch.randn(40, 3, dtype=DOUBLE), quantizer.codebook.clone()
        codes = quantizer(z).codes
        assert torch.equal(codes, (z[:, None] - before).square().sum(-1).argmin(1))
        chosen = nn.functional.one_hot(codes, 8).to(DOUBLE)
        seen.append((chosen.sum(0), chosen.T @ z))
    weights = [(1 - decay) * decay ** (steps - 1 - t) / (1 - decay**steps) for t in range(steps)]
    assert sum(weights) == pytest.approx(1)
    sizes, sums = (torch.stack([w * s[i] for w, s in zip(weights, seen, strict=True)]).sum(0) for i in (0, 1))
    torch.testing.assert_close(quantizer.codebook, sums / sizes[:, None], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(quantizer.averages[:, 0] / quantizer.weight, sizes, rtol=1e-6, atol=1e-8)


def test_after_one_step_codes_are_means() -> None:
    quantizer = VectorQuantizer(8, 3, ema=0.999).double()
    quantizer.start_from(torch.randn(50, 3, dtype=DOUBLE))
    z = torch.randn(200, 3, dtype=DOUBLE)
    codes = quantizer(z).codes
    means = torch.stack([z[codes == k].mean(0) for k in range(8)])
    torch.testing.assert_close(quantizer.codebook, means, rtol=1e-4, atol=1e-6)


def test_an_unused_code_stays_where_it_is() -> None:
    quantizer = VectorQuantizer(3, 2, ema=0.9, revive=0)
    quantizer.start_from(torch.tensor([[0.0, 0.0], [1.0, 1.0], [50.0, 50.0]]))
    for _ in range(300):
        quantizer(torch.rand(20, 2))
    far = quantizer.codebook[quantizer.codebook.sum(1).argmax()]
    torch.testing.assert_close(far, torch.tensor([50.0, 50.0]))


def test_online_k_means_settles_at_the_means() -> None:
    vectors, means = clusters(each=400)
    quantizer = VectorQuantizer(12, 4, ema=0.95).double()
    for piece in vectors.split(200):
        quantizer(piece)
    distance = (lexical(quantizer.codebook) - lexical(means)).norm(dim=1)
    assert distance.max() < 5 * math.sqrt(4 / 400)  # about five standard errors of a cluster's mean


# -- revival ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ema", [0.9, None])
@pytest.mark.parametrize("cosine", [False, True])
def test_codes_far_away_come_back(ema: float | None, cosine: bool) -> None:
    used = {}
    for revive in (0.03, 0.0):
        quantizer, usage = VectorQuantizer(64, 4, ema=ema, cosine=cosine, revive=revive), Usage(64)
        quantizer.start_from(0.01 * torch.randn(64, 4) + torch.tensor([100.0, 0.0, 0.0, 0.0]))
        z = torch.randn(700, 256, 4)  # seven windows: a code that was popular takes that long to be forgotten
        z[..., 0] = -z[..., 0].abs()
        for step in z:
            quantizer(step)
        usage.update(quantizer.eval().codes_of(z[-20:].flatten(0, 1)))
        used[revive] = usage.used
    assert used[0.03] > 0.9
    assert used[0.0] < 0.5


def test_revival_resets_the_averages() -> None:
    quantizer = VectorQuantizer(4, 2, ema=0.9, revive=0.04)
    quantizer.start_from(torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1000.0, 1000.0]]))
    (far,) = (quantizer.codebook.sum(1) > 1000).nonzero()[0]
    steps = torch.rand(7, 30, 2)
    for step in steps:
        assert quantizer.codebook[far].sum() == 2000  # 1 - 0.9^6 is still less than a half
        quantizer(step)
    vector = quantizer.codebook[far]
    assert (steps[-1] == vector).all(1).any()
    size, total = quantizer.averages[far, 0], quantizer.averages[far, 1:]
    torch.testing.assert_close(total / size, vector)
    others = quantizer.averages[:, 0].sum() - size
    torch.testing.assert_close(size, 0.2 * others / 4)  # the square root of 0.04 of the mean count before


def test_popular_codes_are_left_alone() -> None:
    vectors, _ = clusters()
    with_revival, without = (VectorQuantizer(12, 4, ema=0.9, revive=r).double() for r in (0.03, 0.0))
    for quantizer in (with_revival, without):
        torch.manual_seed(0)
        quantizer.start_from(vectors)
        for i in range(50):
            quantizer(vectors[i % 4 :: 4])
    torch.testing.assert_close(with_revival.codebook, without.codebook)


def test_a_revived_parameter_can_still_be_learned() -> None:
    quantizer = VectorQuantizer(16, 4, ema=None, cosine=True, project=3)
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.01)
    z, losses = torch.randn(64, 4), []
    for _ in range(120):
        first, second = quantizer(z), quantizer(z)  # two in one graph: the codebook changes between them
        losses_of = [out.codebook_loss + 0.25 * out.commitment_loss for out in (first, second)]
        loss = torch.cat(losses_of).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


SCRIPT = """
import json, pathlib, sys, torch
from torch import distributed
from tightbound.quantizers import VectorQuantizer

rank, out = int(sys.argv[1]), pathlib.Path(sys.argv[2])
distributed.init_process_group("gloo", init_method=f"file://{out}/store", rank=rank, world_size=2)
states = []
for ema in (0.95, None):
    torch.manual_seed(rank)
    quantizer = VectorQuantizer(32, 4, ema=ema, revive=0.05)
    quantizer(torch.randn(128, 4) + rank)  # starts from the vectors of the first
    lazily = quantizer.codebook.flatten().tolist()
    quantizer.start_from(100 + torch.randn(128, 4) if rank == 0 else torch.zeros(4, 4))
    begin = quantizer.codebook.mean().item()
    for _ in range(90):
        quantizer(torch.randn(64, 4) + rank)
    state = {name: tensor.double().flatten().tolist() for name, tensor in quantizer.state_dict().items()}
    states.append({**state, "lazily": lazily, "begin": begin})
(out / f"{rank}.json").write_text(json.dumps(states))
distributed.barrier()
distributed.destroy_process_group()
"""


def test_two_processes_keep_one_codebook(tmp_path: Path) -> None:
    """With averages and without, through a lazy start, one from data, and the revival of every code."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    commands = [[sys.executable, "-c", SCRIPT, str(rank), str(tmp_path)] for rank in range(2)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) for command in commands]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    one, two = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert one == two
    for state in one:
        assert state["begin"] > 90
        codebook = torch.tensor(state["codebook"]).view(32, 4)
        assert (codebook.mean(1) < 10).float().mean() > 0.9, "the far codes were not revived"
        per_step = torch.tensor(state["averages"]).view(32, -1)[:, 0].sum() / state["weight"][0]
        assert per_step == pytest.approx(128, rel=0.2), "the vectors of only one process were counted"


# -- the finite grid --------------------------------------------------------------------------------------------------

LEVELS = [(8, 5, 5, 5), (3,), (4, 3, 7), (16, 16)]


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_every_code_has_its_own_point_and_back(levels: tuple[int, ...]) -> None:
    quantizer = FiniteScalarQuantizer(levels, dim=len(levels))
    with torch.no_grad():
        for layer in (quantizer.inward, quantizer.outward):
            layer.weight.copy_(torch.eye(len(levels)))
            layer.bias.zero_()
    codes = torch.arange(quantizer.codes)
    points = quantizer.points_of(codes)
    assert quantizer.codes == math.prod(levels) == len(points.unique(dim=0))
    assert points.min() == -1
    assert points.max() <= 1
    widths = torch.tensor(levels, dtype=DOUBLE)  # the inverse of the bound, in closed form
    half, offset = 1.001 * (widths - 1) / 2, (1 - widths % 2) / 2
    z = torch.atanh((points * (widths // 2) + offset) / half) - torch.atanh(offset / half)
    out = quantizer(z.float())
    assert torch.equal(out.codes, codes)
    assert torch.equal(out.vectors, points)
    assert torch.equal(quantizer.embed(codes), points)


@pytest.mark.parametrize("levels", [3, 4, 5, 8, 1001, 1002, 4096, 50_001])
def test_the_bound_reaches_every_level_and_no_other(levels: int) -> None:
    quantizer = FiniteScalarQuantizer((levels,), dim=1)
    values = torch.linspace(-1e4, 1e4, 20_001).view(-1, 1)
    half, offset = (levels - 1) / 2, (1 - levels % 2) / 2
    each = (torch.linspace(-half, half, levels).view(-1, 1) / half * 0.999_999).atanh() - math.atanh(offset / half)
    values = torch.cat([values, torch.linspace(-12, 12, 5_001).view(-1, 1), each, torch.zeros(1, 1)])
    rounded = quantizer.bounded(values).round()
    assert rounded.unique().tolist() == list(range(-(levels // 2), (levels + 1) // 2))
    assert quantizer.bounded(torch.zeros(1, 1)).abs().item() < 1e-6 * levels


def test_more_codes_than_can_be_told_apart_are_refused() -> None:
    for levels in ((4096, 4097), (3_000_000_000_000,) * 2):
        with pytest.raises(UsageError, match="Too many codes"):
            FiniteScalarQuantizer(levels, dim=2)
    assert FiniteScalarQuantizer((4096, 4096), dim=2).codes == 1 << 24


def test_the_gradient_of_the_rounding_is_that_of_the_bound() -> None:
    quantizer, z = FiniteScalarQuantizer((5, 8), dim=2).double(), torch.randn(7, 2, dtype=DOUBLE, requires_grad=True)
    weights = torch.randn(7, 2, dtype=DOUBLE)
    (through,) = torch.autograd.grad((weights * quantizer(z).vectors).sum(), z)
    smooth = quantizer.outward(quantizer.bounded(quantizer.inward(z)) / torch.tensor([2, 4]))
    (expected,) = torch.autograd.grad((weights * smooth).sum(), z)
    torch.testing.assert_close(through, expected)


def test_random_vectors_use_nearly_all_of_the_finite_grid() -> None:
    quantizer, usage = FiniteScalarQuantizer((8, 5, 5, 5), dim=4), Usage(1000)
    with torch.no_grad():
        quantizer.inward.weight.copy_(torch.eye(4))
    with torch.autocast("cpu", torch.bfloat16):
        usage.update(quantizer(1.5 * torch.randn(50_000, 4)).codes)
    assert usage.used > 0.99


# -- usage ------------------------------------------------------------------------------------------------------------


def test_usage_is_counted_over_all_batches() -> None:
    usage = Usage(8)
    assert (usage.used, usage.perplexity) == (0.0, 0.0)
    for k in range(4):
        usage.update(torch.full((2, 3), k))
    assert usage.used == 0.5
    assert usage.perplexity == pytest.approx(4)
    usage.update(torch.zeros(24, dtype=torch.int64))
    shares = [30 / 48, 6 / 48, 6 / 48, 6 / 48]
    assert usage.perplexity == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)))
    with pytest.raises(UsageError, match="out of range"):
        usage.update(torch.tensor([8]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: VectorQuantizer(0, 4),
        lambda: VectorQuantizer(4, 0),
        lambda: VectorQuantizer(4, 4, project=0),
        lambda: VectorQuantizer(4, 4, ema=1.0),
        lambda: VectorQuantizer(4, 4, revive=1.0),
        lambda: VectorQuantizer(4, 4, revive=-0.1),
        lambda: VectorQuantizer(4, 4, start="kmeans"),  # pyright: ignore[reportArgumentType]
        lambda: FiniteScalarQuantizer((), dim=4),
        lambda: FiniteScalarQuantizer((8, 2), dim=4),
        lambda: FiniteScalarQuantizer((8, 5), dim=0),
        lambda: Usage(0),
    ],
)
def test_numbers_out_of_range_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        make()


def test_nothing_to_start_from_is_refused() -> None:
    with pytest.raises(DataError):
        VectorQuantizer(4, 4).start_from(torch.zeros(0, 4))


def test_what_is_held_at_once_is_bounded() -> None:
    """The largest tensor that a step makes, however many vectors there are."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                self.numbers = max(self.numbers, out.numel())
            return out

    quantizer = VectorQuantizer(8192, 4)
    quantizer.start_from(torch.randn(8192, 4))
    z = torch.randn(16, 4, 32, 32)
    with Largest() as largest:
        quantizer(z)
    assert largest.numbers <= 1 << 21  # of the 2^27 distances


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.RMSprop, torch.optim.Adamax])
def test_a_revived_code_does_not_go_where_the_dead_one_was_going(optimizer: Any) -> None:
    """Without a memory and without a gradient it stays where it starts; the others move on as they would have."""
    quantizer = VectorQuantizer(8, 2, ema=None, start="data")
    codebook: Any = quantizer.codebook
    moving = optimizer([codebook], lr=0.1)
    for _ in range(5):
        codebook.grad = torch.ones_like(codebook)
        moving.step()
    quantizer.started.fill_(True)
    quantizer.weight.fill_(0.9)
    quantizer.averages.fill_(1.0)
    quantizer.averages[3] = 0.0
    quantizer(5 + torch.randn(16, 2, 1, 1))
    before = codebook.detach().clone()
    assert (before[3] > 2).all()
    codebook.grad = torch.ones_like(codebook)
    quantizer.before_step(moving)
    moving.step()
    assert torch.equal(codebook[3], before[3])
    assert ((codebook - before).abs().amin(1) > 1e-3).sum() == 7
    assert not quantizer.anew.any()
    assert set(quantizer.state_dict()) == {"codebook", "averages", "weight", "started"}


def test_known_vectors_move_by_the_rate_of_the_averages() -> None:
    torch.manual_seed(0)
    vectors = 5 * torch.randn(8, 3)
    quantizer = VectorQuantizer(8, 3, ema=0.99).train()
    quantizer.take(vectors)
    quantizer((vectors.repeat(16, 1) + 1).T.reshape(1, 3, 16, 8))
    moved = quantizer.codebook - vectors
    assert 0 < moved.min() <= moved.max() < 0.2  # 16 rows at a distance of 1, of weight 0.01
