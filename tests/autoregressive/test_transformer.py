"""A transformer over codes: what it sees, that it is a distribution, and that its cache changes nothing."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from tightbound.autoregressive.text_prefix import TokenPrefix, rotary_angles, rotate
from tightbound.autoregressive.transformer import CachedTransformer, Transformer
from tightbound.distributions.sampling import Sampling
from tightbound.errors import ShapeError, UsageError

LEVELS, SHAPE, WIDTH, PREFIX, N = 7, (3, 4), 24, 5, 12


def network(dtype: torch.dtype = torch.float64, **options: Any) -> Transformer:
    """Small, but with weights large enough for every path to count."""
    options = {"levels": LEVELS, "shape": SHAPE, "width": WIDTH, "layers": 3, "heads": 3} | options
    made = Transformer(**options).to(dtype)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return made


def codes_of(n: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randint(LEVELS, (n, *shape))


def conditions(n: int, kind: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor | None, Tensor | None]:
    """A prefix and its mask: none, whole, with holes, with nothing."""
    if kind == "none":
        return None, None
    prefix = torch.randn(n, PREFIX, WIDTH, dtype=dtype)
    if kind == "whole":
        return prefix, None
    mask = torch.rand(n, PREFIX) < 0.5
    mask[0], mask[1, 0], mask[1, -1] = False, False, True
    return prefix, mask


KINDS = ("none", "whole", "holes")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [SHAPE, (6,), (2, 3, 2), (1, 1)])
def test_logits_see_the_codes_before_and_no_others(shape: tuple[int, ...], kind: str) -> None:
    net, codes = network(shape=shape), codes_of(2, shape)
    prefix, mask = conditions(2, kind)
    logits = net(codes, prefix, mask)
    order = torch.arange(codes[0].numel()).view(shape)
    order = (order.movedim(0, -1) if len(shape) == 3 else order).flatten()  # the channels of a pixel come together
    for j in range(len(order)):
        other = codes.flatten(1).clone()
        other[:, order[j]] = (other[:, order[j]] + 1) % LEVELS
        changed = (net(other.view_as(codes), prefix, mask) - logits).flatten(1, -2).abs().amax((0, 2))[order]
        assert (changed[: j + 1] == 0).all()
        assert (changed[j + 1 :] > 1e-6).all()


@pytest.mark.parametrize("j", range(PREFIX))
def test_every_entry_of_the_prefix_reaches_every_code(j: int) -> None:
    net, codes = network(), codes_of(2)
    prefix, _ = conditions(2, "whole")
    assert prefix is not None
    prefix.requires_grad_()
    for logits in net(codes, prefix).flatten(1, 2).log_softmax(-1)[..., 0].sum(0):
        (grad,) = torch.autograd.grad(logits, prefix, retain_graph=True)
        assert (grad[:, j].abs().sum(-1) > 1e-9).all()


def test_a_masked_entry_is_as_good_as_absent() -> None:
    net, codes = network(), codes_of(2)
    prefix = torch.randn(2, PREFIX, WIDTH, dtype=torch.float64)
    mask = torch.tensor([[True, False, True, False, False]] * 2)
    nonsense = prefix.clone()
    nonsense[:, [1, 3, 4]] = torch.nan
    torch.testing.assert_close(net(codes, nonsense, mask), net(codes, prefix[:, [0, 2]]))
    nothing = torch.zeros(2, PREFIX, dtype=torch.bool)
    torch.testing.assert_close(net(codes, nonsense, nothing), net(codes))


def test_one_batch_does_not_mix_its_examples() -> None:
    net, codes = network(), codes_of(4)
    prefix, mask = conditions(4, "holes")
    assert prefix is not None
    assert mask is not None
    alone = [net(codes[i : i + 1], prefix[i : i + 1], mask[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(net(codes, prefix, mask), torch.cat(alone))


def test_places_are_a_row_and_a_column() -> None:
    net = network()
    places = net.places().unflatten(0, SHAPE)
    rows, columns = places - places[:1], places - places[:, :1]
    torch.testing.assert_close(rows, rows[:, :1].expand_as(rows))
    torch.testing.assert_close(columns, columns[:1].expand_as(columns))
    assert len(places.flatten(0, 1).unique(dim=0)) == N


def every_grid(levels: int, shape: tuple[int, int]) -> Tensor:
    return torch.tensor(list(itertools.product(range(levels), repeat=shape[0] * shape[1]))).view(-1, *shape)


def log_prob(net: Transformer, codes: Tensor, *given: Tensor | None) -> Tensor:
    return net(codes, *given).log_softmax(-1).gather(-1, codes.unsqueeze(-1)).flatten(1).sum(1)


def test_probabilities_of_all_grids_sum_to_one() -> None:
    net, codes = network(levels=3, shape=(2, 2)), every_grid(3, (2, 2))
    prefix = torch.randn(1, PREFIX, WIDTH, dtype=torch.float64)
    mask = torch.tensor([[True, False, True, True, False]])
    for given in ((), (prefix,), (prefix, mask)):
        assert log_prob(net, codes, *given).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_samples_have_the_probabilities_that_the_logits_say() -> None:
    net, codes = network(levels=3, shape=(2, 2)), every_grid(3, (2, 2))
    prefix = torch.randn(1, PREFIX, WIDTH, dtype=torch.float64)
    n = 8_000
    drawn = net.generate(n, prefix).flatten(1) @ torch.tensor([27, 9, 3, 1])
    expected = n * log_prob(net, codes, prefix).exp().detach()
    chi_squared = ((drawn.bincount(minlength=81) - expected).square() / expected)[expected > 5].sum()
    assert chi_squared < 150, "80 degrees of freedom: exceeded with probability 4e-6"


@dataclass(frozen=True)
class Recorded(Sampling):
    """Draws as its base does, and keeps the logits that it was given."""

    seen: list[Tensor] = field(default_factory=list)
    seen_null: list[Tensor] = field(default_factory=list)

    def choose(self, logits: Tensor, null: Tensor | None = None) -> Tensor:
        self.seen.append(logits.clone())
        if null is not None:
            self.seen_null.append(null.clone())
        return super().choose(logits, null)


TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("rotary", [0, PREFIX])
@pytest.mark.parametrize("kind", KINDS)
def test_cached_logits_are_the_uncached(kind: str, rotary: int, dtype: torch.dtype) -> None:
    n, net, sampling = 3, network(dtype, rotary_prefix=rotary), Recorded()
    prefix, mask = conditions(n, kind, dtype)
    codes = net.generate(n, prefix, sampling=sampling, prefix_mask=mask)
    apart = torch.stack(sampling.seen, 1).unflatten(1, SHAPE) - net(codes, prefix, mask)
    assert apart.abs().max() < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("kind", "null_kind"), [("whole", "whole"), ("holes", "whole"), ("whole", "holes")])
def test_cached_guided_logits_are_the_uncached(kind: str, null_kind: str, dtype: torch.dtype) -> None:
    n, net, sampling = 3, network(dtype), Recorded(guidance=2.5)
    (prefix, mask), (null, null_mask) = conditions(n, kind, dtype), conditions(n, null_kind, dtype)
    codes = net.generate(n, prefix, null, sampling, mask, null_mask)
    for seen, given in ((sampling.seen, (prefix, mask)), (sampling.seen_null, (null, null_mask))):
        apart = torch.stack(seen, 1).unflatten(1, SHAPE) - net(codes, *given)
        assert apart.abs().max() < TOLERANCE[dtype]


@pytest.mark.parametrize("n", [1, 16])
def test_cached_logits_are_the_uncached_where_products_are_large(n: int) -> None:
    """Products of this size go to another library than the small ones do."""
    net, sampling = Transformer(64, (4, 4), width=256, layers=2, heads=8), Recorded()
    codes = net.generate(n, sampling=sampling)
    apart = torch.stack(sampling.seen, 1).unflatten(1, (4, 4)) - net(codes)
    assert apart.abs().max() < 1e-5


def test_the_cache_can_be_driven_by_hand() -> None:
    net, codes = network(), codes_of(2)
    cached = CachedTransformer(net, 2)
    logits = [cached.first, *(cached.step(codes.flatten(1)[:, i]) for i in range(N - 1))]
    assert not cached.first.requires_grad
    assert not logits[-1].requires_grad
    torch.testing.assert_close(torch.stack(logits, 1), net(codes).flatten(1, 2))


def test_guidance_of_one_is_plain_and_of_zero_is_the_missing_condition() -> None:
    net = network()
    (prefix, _), (null, _) = conditions(4, "whole"), conditions(4, "whole")

    def drawn(*prefixes: Tensor | None, guidance: float = 1.0) -> Tensor:
        torch.manual_seed(3)
        return net.generate(4, *prefixes, sampling=Sampling(guidance=guidance))

    plain, missing = drawn(prefix), drawn(null)
    assert not torch.equal(plain, missing)
    assert torch.equal(drawn(prefix, null), plain)
    assert torch.equal(drawn(prefix, null, guidance=0.0), missing)
    assert not torch.equal(drawn(prefix, null, guidance=4.0), plain)


def test_guidance_is_the_product_of_powers_that_it_says() -> None:
    """Samples of one code under guidance s follow p(s|c)^s p(s)^(1 - s), normalised."""
    net = network(shape=(1,))
    prefix, null = torch.randn(2, 1, PREFIX, WIDTH, dtype=torch.float64)
    n, zeros = 8_000, torch.zeros(1, 1, dtype=torch.int64)
    conditional, missing = (net(zeros, given).log_softmax(-1)[0, 0].detach() for given in (prefix, null))
    expected = n * (3 * conditional - 2 * missing).softmax(-1)
    counts = net.generate(n, prefix, null, Sampling(guidance=3.0)).flatten().bincount(minlength=LEVELS)
    assert ((counts - expected).square() / expected)[expected > 5].sum() < 35, "6 degrees: probability 4e-6"


def test_the_most_probable_path() -> None:
    net, codes = network(), torch.zeros(3, *SHAPE, dtype=torch.int64)
    prefix, mask = conditions(3, "holes")
    for i in range(N):
        codes.flatten(1)[:, i] = net(codes, prefix, mask).flatten(1, 2)[:, i].argmax(-1)
    for sampling in (Sampling(top_k=1), Sampling(temperature=0)):
        assert torch.equal(net.generate(3, prefix, sampling=sampling, prefix_mask=mask), codes)


def test_dropout_trains_and_is_off_while_sampling() -> None:
    net = network(dropout=0.5)
    codes = codes_of(2)
    assert not torch.equal(net(codes), net(codes))
    net.blocks[0].eval()
    modes = [part.training for part in net.modules()]
    greedy = Sampling(temperature=0)
    drawn = net.generate(2, sampling=greedy)
    assert [part.training for part in net.modules()] == modes
    assert torch.equal(net.eval().generate(2, sampling=greedy), drawn)
    assert torch.equal(net(codes), net(codes))


def test_modes_are_restored_when_sampling_fails() -> None:
    net = network(dropout=0.5)
    with pytest.raises(ShapeError):
        net.generate(2, torch.zeros(2, PREFIX, WIDTH + 1, dtype=torch.float64))
    assert all(part.training for part in net.modules())


def test_state_goes_from_one_to_another() -> None:
    first, second, codes = network(), network(), codes_of(2)
    assert not torch.equal(first(codes), second(codes))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(codes), second(codes))


@pytest.mark.parametrize("rotary", [0, PREFIX])
def test_a_gradient_reaches_every_parameter(rotary: int) -> None:
    net, codes = network(rotary_prefix=rotary, dropout=0.1), codes_of(8)
    log_prob(net, codes, conditions(8, "whole")[0]).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_it_learns_a_deterministic_grid() -> None:
    net = Transformer(4, (2, 3), width=32, layers=1, heads=2)
    text = TokenPrefix(2, 1, 32)
    grids, words = torch.randint(4, (2, 2, 3)), torch.tensor([[0], [1]])
    optimiser = torch.optim.Adam([*net.parameters(), *text.parameters()], lr=1e-2)
    for _ in range(100):
        optimiser.zero_grad()
        (-log_prob(net, grids, text(words))).sum().backward()
        optimiser.step()
    assert torch.equal(net.generate(2, text(words), sampling=Sampling(temperature=0)), grids)


def test_products_of_rotated_vectors_know_their_distance_alone() -> None:
    q, k = torch.randn(2, 1, 6, dtype=torch.float64)
    turned = [rotate(x.expand(5, 6), *rotary_angles(5, 6, x)) for x in (q, k)]
    products = turned[0] @ turned[1].T
    for offset in range(-4, 5):
        torch.testing.assert_close(products.diagonal(offset), products.diagonal(offset)[:1].expand(5 - abs(offset)))
    torch.testing.assert_close(turned[0].norm(dim=-1), q.norm().expand(5))
    torch.testing.assert_close(products[0, 0], (q * k).sum())


def test_rotary_places_tell_the_order_of_a_prefix() -> None:
    codes = codes_of(1)
    prefix = torch.randn(1, PREFIX, WIDTH, dtype=torch.float64)
    order = torch.tensor([1, 0, 2, 3, 4])
    for rotary, layers, told in ((0, 1, False), (PREFIX, 1, True)):
        net = network(rotary_prefix=rotary, layers=layers)
        apart = (net(codes, prefix) - net(codes, prefix[:, order])).abs().max()
        assert (apart > 1e-6) == told, "one block without places sees a bag of entries"


class TestTokenPrefix:
    def test_every_empty_place_has_a_vector_of_its_own(self) -> None:
        for positions in ("learned", "rotary"):
            prefix = TokenPrefix(9, 4, WIDTH, positions)(torch.full((1, 4), -1))
            assert len(prefix[0].unique(dim=0)) == 4

    def test_tokens_are_what_they_are_and_where(self) -> None:
        learned, rotary = TokenPrefix(9, 4, WIDTH), TokenPrefix(9, 4, WIDTH, "rotary")
        twice = torch.tensor([[3, 3, -1, -1]])
        assert torch.equal(*rotary(twice)[0, :2])
        assert not torch.equal(*learned(twice)[0, :2])
        assert torch.equal(learned(twice)[:, 2:], learned(learned.missing(1))[:, 2:])

    def test_the_missing_text_leads_guidance(self) -> None:
        text = TokenPrefix(9, PREFIX, WIDTH, "rotary").double()
        net = network(rotary_prefix=text.rotary_prefix)
        tokens = torch.tensor([[1, 2, 3, -1, -1], [4, -1, -1, -1, -1]])
        prefix, null = text(tokens), text(text.missing(2))
        sampling = Recorded(guidance=3.0)
        codes = net.generate(2, prefix, null, sampling)
        assert (torch.stack(sampling.seen_null, 1).unflatten(1, SHAPE) - net(codes, null)).abs().max() < 1e-10

    def test_gradients_reach_the_words_that_are_there_and_no_others(self) -> None:
        text = TokenPrefix(9, 4, WIDTH)
        text(torch.tensor([[3, 5, -1, -1]])).sum().backward()
        assert text.tokens.weight.grad is not None
        assert text.empty.grad is not None
        assert text.tokens.weight.grad.abs().sum(-1).nonzero().flatten().tolist() == [3, 5]
        assert text.empty.grad.abs().sum(-1).nonzero().flatten().tolist() == [2, 3]

    def test_texts_of_another_length_are_refused(self) -> None:
        with pytest.raises(ShapeError, match=r"\(n, 4\)"):
            TokenPrefix(9, 4, WIDTH)(torch.zeros(2, 5, dtype=torch.int64))
        with pytest.raises(UsageError, match="sinusoid"):
            TokenPrefix(9, 4, WIDTH, "sinusoid")  # pyright: ignore[reportArgumentType]


def zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda net: net(codes_of(2, (4, 3))), ShapeError),
        (lambda net: net(codes_of(2), zeros(3, PREFIX, WIDTH)), ShapeError),
        (lambda net: net(codes_of(2), zeros(2, PREFIX, WIDTH - 1)), ShapeError),
        (lambda net: net(codes_of(2), zeros(2, WIDTH)), ShapeError),
        (lambda net: net(codes_of(2), zeros(2, PREFIX, WIDTH), torch.ones(2, 2, dtype=torch.bool)), ShapeError),
        (lambda net: net.generate(2, sampling=Sampling(guidance=2.0)), UsageError),
        (lambda net: net.generate(2, zeros(2, PREFIX, WIDTH), sampling=Sampling(guidance=2.0)), UsageError),
        (lambda net: net.generate(2, zeros(2, 5, WIDTH), zeros(1, 4, WIDTH), Sampling(guidance=2.0)), ShapeError),
        (lambda net: net.generate(2, zeros(3, 5, WIDTH), zeros(2, 5, WIDTH), Sampling(guidance=2.0)), ShapeError),
        (lambda _: network(rotary_prefix=2)(codes_of(2), zeros(2, PREFIX, WIDTH)), ShapeError),
        (lambda _: Transformer(5, SHAPE, width=10, heads=4), ShapeError),
        (lambda _: Transformer(5, SHAPE, width=9, heads=3, rotary_prefix=4), ShapeError),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"expected|remedy"):
        call(network())
