"""What a code sees, that probabilities are probabilities, and that what is cached is what is not."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from tightbound.autoregressive.pixelcnn import PixelCNN
from tightbound.autoregressive.pixelcnn_layers import CausalAttention
from tightbound.distributions.sampling import Sampling
from tightbound.errors import DataError, ShapeError, UsageError

LEVELS = 3
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"shape": (5, 4)},
    "wide kernel": {"shape": (4, 5), "kernel": 5},
    "attention": {"shape": (4, 4), "attention_every": 1},
    "condition": {"shape": (4, 3), "condition_dim": 2},
    "grid": {"shape": (3, 4), "grid_channels": 2},
    "colour": {"shape": (3, 3, 4)},
    "everything": {"shape": (2, 4, 3), "attention_every": 2, "condition_dim": 2, "grid_channels": 3, "dropout": 0.3},
    "one row": {"shape": (1, 6), "attention_every": 1},
    "one column": {"shape": (6, 1), "kernel": 5},
}


def network(shape: tuple[int, ...], levels: int = LEVELS, **options: Any) -> PixelCNN:
    """A small network whose every part matters."""
    net = PixelCNN(levels, shape, **{"channels": 8, "layers": 2, "kernel": 3, "heads": 2, **options})
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return net.double().eval()


def random_codes(net: PixelCNN, n: int) -> Tensor:
    return torch.randint(0, net.levels, (n, *net.shape))


def conditions(net: PixelCNN, n: int) -> dict[str, Any]:
    """What this network wants to be shown, beside the codes."""
    dtype = net.output_layer.weight.dtype
    shown = {}
    if net.condition_dim:
        shown["c"] = torch.randn(n, net.condition_dim, dtype=dtype)
    if net.grid_channels:
        shown["grid"] = torch.randn(n, net.grid_channels, *net.size, dtype=dtype)
    return shown


def in_order(net: PixelCNN, logits: Tensor) -> Tensor:
    """Logits ``(n, positions, levels)``, in the order in which codes come."""
    planes = logits.reshape(len(logits), net.planes, *net.size, net.levels)
    return planes.movedim(1, 3).flatten(1, 3)


@pytest.fixture(params=VARIANTS, name="net")
def any_network(request: pytest.FixtureRequest) -> PixelCNN:
    return network(**VARIANTS[request.param])


def seen(net: PixelCNN) -> Tensor:
    """Whether the logits at a position (row) feel the code at another (column), by changing every code in turn."""
    codes = random_codes(net, 1)
    shown = conditions(net, 1)
    places = in_order(net, torch.arange(codes.numel()).view(*codes.shape, 1).expand(*codes.shape, LEVELS))[0, :, 0]
    changed = codes.flatten().repeat(codes.numel(), 1)
    changed[torch.arange(codes.numel()), places] += 1
    changed = changed.view(-1, *net.shape) % net.levels
    before = in_order(net, net(codes, **shown))
    after = in_order(net, net(changed, **{name: v.expand(len(changed), *v.shape[1:]) for name, v in shown.items()}))
    return ((after - before).abs() > 1e-12).any(-1).T


def expected(net: PixelCNN) -> Tensor:
    """What :class:`PixelCNN` says it sees."""
    (H, W), C = net.size, net.planes
    places = list(itertools.product(range(H), range(W), range(C)))
    out = torch.zeros(len(places), len(places), dtype=torch.bool)
    for (to, (i, j, k)), (of, (a, b, l)) in itertools.product(enumerate(places), enumerate(places)):
        above = 1 <= i - a <= net.reach + 1 and abs(j - b) <= net.reach
        left = i == a and 1 <= j - b <= net.reach + 1
        own = (i, j) == (a, b) and l < k
        out[to, of] = above or left or own or (len(net.attentions) > 0 and of < to and (i, j) != (a, b))
    return out


def test_a_code_is_seen_by_none_up_to_itself_and_by_all_after_it_within_reach(net: PixelCNN) -> None:
    torch.testing.assert_close(seen(net), expected(net))


@pytest.mark.parametrize(("layers", "kernel"), [(1, 3), (2, 3), (3, 3), (1, 5), (1, 7)])
def test_there_is_no_blind_spot_and_the_reach_is_the_reach(layers: int, kernel: int) -> None:
    net = network((6, 9), layers=layers, kernel=kernel)
    assert net.reach == layers * (kernel // 2)
    field = expected(net)
    assert torch.equal(seen(net), field)
    assert not torch.equal(field, torch.ones(54, 54).tril(-1).bool()), "else the grid is too small to tell"


def test_attention_sees_everything_before() -> None:
    net = network((6, 9), layers=2, attention_every=2)
    assert torch.equal(seen(net), torch.ones(54, 54).tril(-1).bool())


def log_probability(net: PixelCNN, codes: Tensor, **shown: Tensor) -> Tensor:
    picked = net(codes, **shown).log_softmax(-1).gather(-1, codes.unsqueeze(-1))
    return picked.flatten(1).sum(1)


def every_grid(net: PixelCNN) -> Tensor:
    entries = math.prod(net.shape)
    return torch.tensor(list(itertools.product(range(net.levels), repeat=entries))).view(-1, *net.shape)


@pytest.mark.parametrize("shape", [(2, 2), (1, 4), (2, 1, 2), (4, 1, 1)])
@pytest.mark.parametrize("options", [{}, {"attention_every": 1, "condition_dim": 2, "grid_channels": 2}])
def test_probabilities_sum_to_one(shape: tuple[int, ...], options: dict[str, int]) -> None:
    net = network(shape, **options)
    codes = every_grid(net)
    assert len(codes) == 81
    shown = {name: v.expand(81, *v.shape[1:]) for name, v in conditions(net, 1).items()}
    total = log_probability(net, codes, **shown).exp().sum()
    torch.testing.assert_close(total, torch.ones((), dtype=torch.float64), rtol=0, atol=1e-12)


def test_samples_have_these_probabilities() -> None:
    """Pearson's statistic of 20 000 grids over 16 states: within 4 standard deviations of its mean."""
    net = network((2, 1, 2), levels=2)
    net.output_layer.weight.data /= 4  # no state so rare that its count is not Gaussian
    codes, n = every_grid(net), 20_000
    wanted = n * log_probability(net, codes).exp()
    drawn = net.generate(n).flatten(1) @ torch.tensor([8, 4, 2, 1])
    statistic = ((torch.bincount(drawn, minlength=16) - wanted).square() / wanted).sum()
    assert wanted.min() > 5
    assert statistic < 15 + 4 * math.sqrt(30)


@dataclass(frozen=True)
class Following(Sampling):
    """Chooses given codes, and writes down the logits of each."""

    codes: Tensor = field(default_factory=lambda: torch.empty(0))
    logits: list[Tensor] = field(default_factory=list)

    def choose(self, logits: Tensor, null: Tensor | None = None) -> Tensor:
        self.logits.append(logits if null is None else torch.stack([logits, null]))
        return self.codes[:, len(self.logits) - 1]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_cached_logits_are_the_logits(net: PixelCNN, dtype: torch.dtype, tolerance: float) -> None:
    net = net.to(dtype)
    codes, shown = random_codes(net, 3), conditions(net, 3)
    follow = Following(codes=in_order(net, codes.unsqueeze(-1).expand(*codes.shape, LEVELS))[..., 0])
    assert torch.equal(net.generate(3, **shown, sampling=follow), codes)
    logits = in_order(net, net(codes, **shown))
    scale = logits.abs().max()
    torch.testing.assert_close(torch.stack(follow.logits, 1) / scale, logits / scale, rtol=0, atol=tolerance)


def test_both_logits_of_guidance_come_from_one_batch() -> None:
    net = network(**VARIANTS["everything"])
    codes, shown, null = random_codes(net, 3), conditions(net, 3), torch.randn(1, 2, dtype=torch.float64)
    follow = Following(codes=in_order(net, codes.unsqueeze(-1).expand(*codes.shape, LEVELS))[..., 0])
    net.generate(3, **shown, null=null, sampling=follow)
    without = {**shown, "c": null.expand(3, -1)}
    logits = torch.stack([in_order(net, net(codes, **kinds)) for kinds in (shown, without)])
    torch.testing.assert_close(torch.stack(follow.logits, 2), logits, rtol=0, atol=1e-10)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0), Sampling(0.7, top_k=2, guidance=3.0)])
def test_cached_codes_are_the_codes(net: PixelCNN, sampling: Sampling) -> None:
    shown = conditions(net, 4)
    null = torch.randn(4, net.condition_dim, dtype=torch.float64) if net.condition_dim else None
    drawn = []
    for cached in (True, False):
        torch.manual_seed(1)
        drawn.append(net.generate(4, **shown, null=null, sampling=sampling, cached=cached))
    assert torch.equal(*drawn)
    assert drawn[0].shape == (4, *net.shape)
    assert drawn[0].dtype == torch.int64
    assert set(drawn[0].unique().tolist()) <= set(range(LEVELS))


@pytest.mark.parametrize(("guidance", "same_as"), [(1.0, "c"), (0.0, "null")])
def test_guidance_of_one_and_of_none(guidance: float, same_as: str) -> None:
    net = network((4, 4), condition_dim=2)
    features = {"c": torch.randn(6, 2, dtype=torch.float64), "null": torch.randn(6, 2, dtype=torch.float64)}
    torch.manual_seed(1)
    guided = net.generate(6, features["c"], features["null"], sampling=Sampling(guidance=guidance))
    torch.manual_seed(1)
    assert torch.equal(guided, net.generate(6, c=features[same_as]))


def test_the_cached_way_multiplies_no_more_than_one_pass_over_the_grid() -> None:
    net = network((12, 12), levels=16, channels=16, layers=4)
    codes = random_codes(net, 2)
    with torch.no_grad(), FlopCounterMode(display=False) as one_pass:
        net(codes)
    with FlopCounterMode(display=False) as generation:
        net.generate(2)
    assert 0 < generation.get_total_flops() <= 1.01 * one_pass.get_total_flops()


def test_generation_drops_nothing_and_leaves_modes_and_gradients_as_they_were() -> None:
    net = network((4, 4), attention_every=1, dropout=0.5)
    torch.manual_seed(1)
    wanted = net.generate(4)
    net.train()
    net.layers[0].eval()
    modes = [module.training for module in net.modules()]
    for cached in (True, False):
        torch.manual_seed(1)
        assert torch.equal(net.generate(4, cached=cached), wanted)
        assert [module.training for module in net.modules()] == modes
    assert all(p.grad is None for p in net.parameters())
    assert net(wanted).requires_grad


@pytest.mark.parametrize("attention_every", [0, 1])
def test_dropout_drops_in_training_only(attention_every: int) -> None:
    net = network((4, 4), attention_every=attention_every, dropout=0.5)
    codes = random_codes(net, 2)
    assert torch.equal(net(codes), net(codes))
    net.train()
    assert not torch.allclose(net(codes), net(codes))


@pytest.mark.parametrize("variant", ["plain", "attention", "colour", "everything"])
def test_gradients_reach_every_parameter_and_every_condition(variant: str) -> None:
    net = network(**VARIANTS[variant])
    shown = {name: v.requires_grad_() for name, v in conditions(net, 3).items()}
    net(random_codes(net, 3), **shown).log_softmax(-1)[..., 0].sum().backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
    assert all(v.grad is not None and (v.grad != 0).all() for v in shown.values())


def test_a_map_is_seen_in_its_place_and_not_above_it() -> None:
    net = network((4, 4), grid_channels=1)
    codes, grid = random_codes(net, 1), torch.randn(1, 1, 4, 4, dtype=torch.float64)
    before = net(codes, grid=grid)
    for i, j in itertools.product(range(4), repeat=2):
        changed = grid.clone()
        changed[0, 0, i, j] += 1
        moved = (net(codes, grid=changed) - before).abs().amax(-1)[0] > 1e-12
        assert moved[i, j]
        assert not moved[:i].any()


def test_the_logits_of_an_example_do_not_depend_on_its_batch(net: PixelCNN) -> None:
    codes, shown = random_codes(net, 5), conditions(net, 5)
    alone = net(codes[2:3], **{name: v[2:3] for name, v in shown.items()})
    torch.testing.assert_close(net(codes, **shown)[2:3], alone, rtol=0, atol=1e-10)


def test_it_learns_to_copy_from_where_a_masked_kernel_is_blind() -> None:
    """Every code repeats the one two columns to the right in the row above: only the free codes cost log K."""
    net = PixelCNN(4, (4, 8), channels=32, layers=2, kernel=3)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    nats = torch.empty(0)
    for _ in range(120):
        codes = torch.randint(0, 4, (32, 4, 8))
        for i in range(1, 4):
            codes[:, i, :6] = codes[:, i - 1, 2:]
        nats = F.cross_entropy(net(codes).movedim(-1, 1), codes, reduction="none")
        optimizer.zero_grad()
        nats.mean().backward()
        optimizer.step()
    assert nats[:, 1:, :6].mean() < 0.05
    free = torch.cat([nats[:, 0].flatten(), nats[:, 1:, 6:].flatten()])
    assert abs(free.mean() - math.log(4)) < 0.15


def test_a_network_is_its_state() -> None:
    net, other = network(**VARIANTS["everything"]), network(**VARIANTS["everything"])
    other.load_state_dict(net.state_dict())
    codes, shown = random_codes(net, 2), conditions(net, 2)
    assert torch.equal(net(codes, **shown), other(codes, **shown))
    assert net.output_layer.weight.shape == (LEVELS, 8)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"levels": 1}, UsageError),
        ({"layers": 0}, UsageError),
        ({"attention_every": -1}, UsageError),
        ({"attention_every": 1, "heads": 3}, UsageError),
        ({"dropout": 1.0}, UsageError),
        ({"kernel": 4}, UsageError),
        ({"kernel": 1}, UsageError),
        ({"shape": (4,)}, ShapeError),
        ({"shape": (0, 4)}, ShapeError),
    ],
)
def test_networks_that_cannot_be(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        PixelCNN(**{"levels": 3, "shape": (4, 4), "channels": 8, **options})


def test_codes_that_do_not_fit() -> None:
    net = network((2, 4, 4))
    with pytest.raises(ShapeError, match=r"\(n, 2, 4, 4\)"):
        net(torch.zeros(3, 4, 4, dtype=torch.long))
    with pytest.raises(ShapeError, match="float32"):
        net(torch.zeros(3, 2, 4, 4))
    for wrong in (-1, LEVELS):  # the second channel's first code, if nobody looked
        codes = random_codes(net, 3)
        codes[1, 0, 2, 2] = wrong
        with pytest.raises(DataError, match=r"0 to 2"):
            net(codes)


def test_conditions_that_do_not_fit() -> None:
    net, bare = network((4, 4), condition_dim=2, grid_channels=3), network((4, 4))
    codes, shown = random_codes(net, 5), conditions(net, 5)
    with pytest.raises(UsageError, match="needs a condition"):
        net(codes, grid=shown["grid"])
    with pytest.raises(UsageError, match="needs a conditioning map"):
        net.generate(5, c=shown["c"])
    with pytest.raises(UsageError, match="condition_dim=2"):
        bare(codes, shown["c"])
    with pytest.raises(ShapeError, match=r"\(5, 2\)"):
        net(codes, shown["c"][:4], shown["grid"])
    with pytest.raises(ShapeError, match=r"\(5, 3, 4, 4\)"):
        net(codes, shown["c"], shown["grid"][..., :3])
    with pytest.raises(ShapeError, match=r"\(5, 2\)"):
        net.generate(5, **shown, null=shown["c"][:2])
    with pytest.raises(UsageError, match="null without c"):
        bare.generate(5, null=shown["c"])


def test_as_many_as_none() -> None:
    net = network((4, 4))
    assert net(random_codes(net, 0)).shape == (0, 4, 4, LEVELS)
    with pytest.raises(UsageError, match="number of samples must be at least 1"):
        net.generate(0)


def test_attention_knows_where_it_is() -> None:
    h = torch.randn(2, 1, 1, 8).expand(2, 3, 3, 8)
    out = CausalAttention(8, heads=2, shape=(3, 3))(h, h).flatten(1, 2)
    assert (out[:, 1:] - out[:, :1]).abs().amax(-1).min() > 1e-4
