"""Masked diffusion of codes: on a small table of probabilities everything can be enumerated."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tightbound as tb
from instances import within_error
from tightbound.conditions import Given
from tightbound.data import Data
from tightbound.diffusion.masked import (
    CodeDenoiser,
    Logits,
    bound_terms,
    hidden_counts,
    log_probs_of,
    numbers_hidden,
    random_sets,
    reveal,
    spans,
)
from tightbound.diffusion.masked_prior import MaskedPrior
from tightbound.diffusion.times import stratified_draws
from tightbound.distributions import Sampling, has_density
from tightbound.errors import ObjectiveError, ShapeError, UsageError
from tightbound.evaluation import evaluate, likelihood
from tightbound.objectives import iwae
from tightbound.options import priors as options
from tightbound.recipes import VAE, GumbelVAE, Stage, TwoStage
from tightbound.recipes.vq_vae import VQVAE, VQVAE2
from tightbound.training.second_stage import fit_prior
from tightbound.training.steps.prior import PriorStep

POSITIONS, CODES = 4, 3
STATES = torch.tensor(list(itertools.product(range(CODES), repeat=POSITIONS)))


class Oracle(CodeDenoiser):
    """Exact conditionals of a table of probabilities; that of class 1 is the reversed one."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = table

    def forward(self, codes: Tensor, hidden: Tensor, c: Given | None = None) -> Logits:
        fits = (codes.unsqueeze(1) == STATES) | hidden.unsqueeze(1)
        left = fits.all(-1) * self._tables(len(codes), c)
        each = [[(left * (STATES[:, i] == k)).sum(1) for k in range(CODES)] for i in range(POSITIONS)]
        return (torch.stack([torch.stack(one, -1) for one in each], 1).log(),)

    def _tables(self, n: int, c: Given | None) -> Tensor:
        if c is None:
            return self.table.expand(n, -1)
        both = torch.stack([self.table, self.table.flip(0), (self.table + self.table.flip(0)) / 2])
        return both[c["class"].squeeze(1)]  # -1, the missing class, is the last


def oracle() -> Oracle:
    """Of a random table with strong dependence."""
    weights = (1.5 * torch.randn(len(STATES), generator=torch.Generator().manual_seed(0), dtype=torch.float64)).exp()
    return Oracle(weights / weights.sum())


def sets() -> Iterator[Tensor]:
    """All sets of hidden codes but the empty one."""
    for hidden in itertools.product([False, True], repeat=POSITIONS):
        if any(hidden):
            yield torch.tensor(hidden)


def entropy(p: Tensor) -> float:
    return -(p * p.log()).sum().item()


def enumerated(steps: int | None) -> float:
    """The bound with exact conditionals, from the numbers of hidden codes."""
    denoiser, counts, total = oracle(), hidden_counts(POSITIONS, steps), 0.0
    for hidden in sets():
        m = int(hidden.sum())
        share = counts[m - 1].item() / math.comb(POSITIONS, m)
        total += share * _cost(denoiser, hidden, weighted=True)
    return total


def _cost(denoiser: Oracle, hidden: Tensor, *, weighted: bool) -> float:
    """The mean of -log p(hidden codes), one by one given the visible ones."""
    rows = hidden.expand(len(STATES), -1)
    log_probs = log_probs_of(denoiser(STATES, rows), STATES)
    terms = bound_terms(log_probs, rows) if weighted else torch.where(rows, log_probs, 0)
    return -(denoiser.table * terms.sum(1)).sum().item()


# -- the bound --------------------------------------------------------------------------------------------------------


def test_with_exact_conditionals_the_continuous_bound_is_the_entropy() -> None:
    assert enumerated(None) == pytest.approx(entropy(oracle().table), abs=1e-10)
    assert 0.1 < entropy(oracle().table) < math.log(len(STATES)) - 0.1


def test_numbers_of_hidden_codes_give_the_bound_of_independent_masks() -> None:
    """The integral over times, by a quadrature that is exact for polynomials, and the sum over the steps of a chain."""
    denoiser = oracle()
    costs = [(int(hidden.sum()), _cost(denoiser, hidden, weighted=False)) for hidden in sets()]
    nodes, weights = np.polynomial.legendre.leggauss(8)
    times = [((x + 1) / 2, w / 2 / ((x + 1) / 2)) for x, w in zip(nodes, weights, strict=True)]
    for steps, levels in ((None, times), (1, [(1.0, 1.0)]), (5, [(k / 5, 1 / k) for k in range(1, 6)])):
        masks = sum(w * t**m * (1 - t) ** (POSITIONS - m) * cost for t, w in levels for m, cost in costs)
        assert enumerated(steps) == pytest.approx(masks, abs=1e-10)


def test_steps_cost_their_inverse_number() -> None:
    extra = {steps: enumerated(steps) - entropy(oracle().table) for steps in (1, 100, 200, 400)}
    assert extra[1] > extra[100] > 1e-4
    for steps in (100, 200):
        assert extra[steps] / extra[2 * steps] == pytest.approx(2.0, rel=0.01)
    marginals = [[oracle().table[STATES[:, i] == k].sum() for k in range(CODES)] for i in range(POSITIONS)]
    independent = sum(entropy(torch.stack(each)) for each in marginals)
    assert enumerated(1) == pytest.approx(independent, abs=1e-10)


@pytest.mark.parametrize("steps", [None, 1, 7, 1000])
def test_the_numbers_of_hidden_codes_are_a_distribution(steps: int | None) -> None:
    counts = hidden_counts(49, steps)
    assert counts.sum().item() == pytest.approx(1, abs=1e-12)
    times = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    found = torch.bincount(numbers_hidden(times, counts), minlength=50)[1:].double() / 10_000
    torch.testing.assert_close(found, counts, atol=2e-4, rtol=0)  # pyright: ignore[reportPrivateImportUsage]


def test_all_sets_of_a_size_are_equally_probable() -> None:
    torch.manual_seed(0)
    hidden = random_sets(torch.full((12_000,), 2), POSITIONS)
    assert (hidden.sum(1) == 2).all()
    _, found = hidden.unique(dim=0, return_counts=True)
    assert len(found) == 6
    assert ((found - 2000).square() / 2000).sum() < 20.5  # chi-square of 5 degrees, one in a thousand


def test_draws_are_stratified_twice_and_uniform_each() -> None:
    torch.manual_seed(0)
    many = torch.stack([stratified_draws(3, 4) for _ in range(4000)])
    assert within_error(many.flatten(1).double(), 0.5)
    assert within_error(many.square().flatten(1).double(), 1 / 3)
    inner = many.mean(1).var(0)
    assert (inner < 0.3 * (1 / 12 / 3)).all()  # of three independent draws


class TwoGrids:
    """A code space of one row, enough for a prior."""

    grids, levels = ((POSITIONS,),), (CODES,)

    def parameters(self, recurse: bool = True) -> Iterator[Any]:
        return iter([torch.zeros(1)])

    def embed(self, codes: Any) -> Tensor:
        return torch.nn.functional.one_hot(codes[0], CODES).double()

    def codes_of(self, z: Tensor) -> tuple[Tensor, ...]:
        return (z.argmax(-1),)


def exact_prior(timesteps: int | None = None) -> MaskedPrior:
    space: Any = TwoGrids()
    return MaskedPrior(space, oracle(), timesteps)


@pytest.mark.parametrize("timesteps", [None, 3])
def test_estimates_are_unbiased_one_by_one_and_steadier_together(timesteps: int | None) -> None:
    torch.manual_seed(0)
    p, space = exact_prior(timesteps)(), TwoGrids()
    z = space.embed((STATES,))
    found = torch.stack([p.lower_bound(z.expand(4, *z.shape)) for _ in range(300)])  # 4 draws of each
    weights = p.prior.denoiser.table  # type: ignore[union-attr]
    mean = (found * weights).sum(-1)
    assert within_error(mean, -enumerated(timesteps), errors=3)
    torch.manual_seed(1)
    alone = torch.stack([p.lower_bound(z) for _ in range(1200)]).view(300, 4, -1)
    assert within_error((alone * weights).sum(-1).flatten(0, 1).unsqueeze(1), -enumerated(timesteps), errors=3)
    assert found.mean(1).var(0).sum() < 0.7 * alone.mean(1).var(0).sum()


def test_a_number_of_hidden_codes_varies_less_than_a_time() -> None:
    """It is the mean over the times that may have hidden as many."""
    torch.manual_seed(0)
    denoiser, n = oracle(), 4000
    x = STATES[torch.multinomial(denoiser.table, n, replacement=True)]
    t = torch.rand(n, 1, dtype=torch.float64)
    masked = torch.rand(n, POSITIONS) < t
    by_time = torch.where(masked, log_probs_of(denoiser(x, masked), x), 0).sum(1) / t.squeeze(1)
    hidden = random_sets(numbers_hidden(torch.rand(n), hidden_counts(POSITIONS)), POSITIONS)
    by_number = bound_terms(log_probs_of(denoiser(x, hidden), x), hidden).sum(1)
    assert within_error(by_number.unsqueeze(1), -entropy(denoiser.table))
    assert by_number.var() < 0.5 * by_time.var()


# -- the sampler ------------------------------------------------------------------------------------------------------


def law_of(plan: list[tuple[int, int]]) -> Tensor:
    """The probabilities of all states when a plan is followed, by enumeration of all orders."""
    denoiser, total = oracle(), torch.zeros(len(STATES), dtype=torch.float64)
    orders = list(itertools.permutations(range(POSITIONS)))
    for order in orders:
        log_p = torch.zeros(len(STATES), dtype=torch.float64)
        for begin, end in plan:
            hidden = torch.zeros(POSITIONS, dtype=torch.bool)
            hidden[list(order[begin:])] = True
            found = log_probs_of(denoiser(STATES, hidden.expand(len(STATES), -1)), STATES)
            log_p += found[:, list(order[begin:end])].sum(1)
        total += log_p.exp()
    return total / len(orders)


def chi_square(steps: int, against: Tensor, n: int = 20_000) -> float:
    torch.manual_seed(0)
    found = reveal(lambda codes, hidden: oracle()(codes, hidden), n, POSITIONS, spans(POSITIONS, steps))
    seen = torch.bincount(found @ CODES ** torch.arange(POSITIONS - 1, -1, -1), minlength=len(STATES))
    return ((seen - n * against).square() / (n * against)).sum().item()


LIMIT = 80 + 3.5 * math.sqrt(2 * 80)
"""Of chi-square with 80 degrees of freedom."""


def test_one_code_at_a_time_gives_the_distribution_itself() -> None:
    assert (law_of(spans(POSITIONS, POSITIONS)) - oracle().table).abs().max() < 1e-12
    assert chi_square(POSITIONS, oracle().table) < LIMIT
    assert chi_square(99, oracle().table) < LIMIT


def test_several_at_a_time_ignore_what_joins_them() -> None:
    table = oracle().table
    away = []
    for steps in (1, 2, 3, 4):
        law = law_of(spans(POSITIONS, steps))
        away.append((table * (table / law).log()).sum().item())
        assert chi_square(steps, law) < LIMIT
    assert away[0] > away[1] > away[2] > 1e-3 > 1e-10 > abs(away[3])
    assert chi_square(1, table) > 2 * LIMIT


def test_codes_are_drawn_in_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, types = torch.multinomial, list[torch.dtype]()

    def seen(p: Tensor, *args: Any) -> Tensor:
        types.append(p.dtype)
        return drawn(p, *args)

    monkeypatch.setattr(torch, "multinomial", seen)
    reveal(lambda codes, hidden: (torch.zeros(*codes.shape, 2),), 3, 5, spans(5, 2))
    assert types == [torch.float64] * 2


def test_guidance_is_the_condition_at_1_and_none_at_0() -> None:
    def drawn(c: Given | None, **how: Any) -> Tensor:
        torch.manual_seed(0)
        given = None if c is None else c.missing()
        null = None if given is None else lambda codes, hidden: oracle()(codes, hidden, given)
        of = lambda codes, hidden: oracle()(codes, hidden, c)
        return reveal(of, 500, POSITIONS, spans(POSITIONS, 4), Sampling(**how), null)

    one, none = (Given({"class": torch.full((500, 1), k)}) for k in (1, -1))
    assert torch.equal(drawn(one, guidance=0.0), drawn(none))
    with_null = drawn(one, guidance=1.0)
    torch.manual_seed(0)
    alone = reveal(lambda codes, hidden: oracle()(codes, hidden, one), 500, POSITIONS, spans(POSITIONS, 4))
    assert torch.equal(with_null, alone)
    log_p = lambda codes: oracle().table.flip(0)[codes @ CODES ** torch.arange(POSITIONS - 1, -1, -1)].log().mean()
    scores = [log_p(drawn(one, guidance=g)) for g in (0.0, 1.0, 3.0)]
    assert scores[0] < scores[1] < scores[2]
    assert log_p(drawn(one, temperature=0.3)) > log_p(drawn(one)) + 0.1
    assert log_p(drawn(one, top_k=1)) > log_p(drawn(one)) + 0.1


def test_every_step_reveals_codes_and_later_ones_more() -> None:
    for positions, steps in ((49, 16), (5, 5), (5, 99), (7, 1)):
        plan = spans(positions, steps)
        sizes = [end - begin for begin, end in plan]
        assert len(plan) == min(positions, steps)
        assert min(sizes) >= 1
        assert all(later >= earlier - 1 for earlier, later in itertools.pairwise(sizes))
        assert [end for _, end in plan[:-1]] == [begin for begin, _ in plan[1:]]
        assert (plan[0][0], plan[-1][1]) == (0, positions)


# -- the prior of a model ---------------------------------------------------------------------------------------------

QUICK: dict[str, Any] = {"steps": 30, "batch_size": 20, "pictures": False, "evaluate_every": 15, "save_every": 1e9}
SMALL = {"layers": 2, "width": 16, "heads": 2, "dropout": 0.0}


def images(n: int = 80) -> Data:
    generator = np.random.default_rng(0)
    values, labels = np.zeros((n, 8, 8), np.uint8), generator.integers(0, 2, n)
    values[labels == 0, :, :4] = 6
    values[labels == 1, :4, :] = 6
    return Data.from_arrays(values + generator.integers(0, 2, values.shape).astype(np.uint8), labels=labels, levels=8)


def vq() -> VQVAE:
    return VQVAE(codes=6, code_dim=4, channels=(8,), blocks=1, likelihood="categorical")


RECIPES = {
    "vq-vae": vq(),
    "vq-vae-2": VQVAE2(codes=5, code_dim=4, channels=(8,), blocks=0, likelihood="categorical"),
    "gumbel-vae": GumbelVAE(positions=6, classes=4, hidden=(8,), likelihood="categorical"),
    "bits": GumbelVAE(positions=6, latents="binary", hidden=(8,), likelihood="categorical"),
}


def two_stage(name: str = "vq-vae", **changes: Any) -> Any:
    torch.manual_seed(0)
    prior = options.MaskedPrior(**{**SMALL, **changes})
    model = TwoStage(Stage(RECIPES[name]), prior).build(images().spec).eval()
    with torch.no_grad():  # so that codes matter
        for parameter in model.get_submodule("prior.denoiser").parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def data() -> Data:
    return images()


@pytest.fixture(scope="module")
def first(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("first")
    tb.train(vq().build(data.spec), data, out=out, **QUICK)
    return out


@pytest.mark.parametrize("name", RECIPES)
def test_every_code_space_has_a_masked_prior(name: str, data: Data) -> None:
    model = two_stage(name)
    p, x = model().prior(), data.test.batch(torch.arange(4)).x
    assert not has_density(p)
    codes = p.sample_codes((3,), Sampling(steps=2))
    assert [level.shape[1:] for level in codes] == [torch.Size(grid) for grid in model.posterior.grids]
    assert all(int(level.max()) < k for level, k in zip(codes, model.posterior.levels, strict=True))
    assert p.code_bound(codes).shape == (3, p.prior.positions)
    assert p.lower_bound(model.posterior(x).mean).shape == (4,)
    assert model().sample((2,)).shape == (2, 1, 8, 8)
    with pytest.raises(ObjectiveError, match="closed form"):
        p.log_prob(model.posterior(x).mean)


def test_levels_see_each_other_and_hidden_codes_are_not_seen() -> None:
    network = two_stage("vq-vae-2").prior.denoiser
    codes, hidden = torch.randint(5, (1, 20)), torch.zeros(1, 20, dtype=torch.bool)
    hidden[:, ::2] = True
    for place in (0, 1, 18, 19):  # of the top, and of the bottom
        other = codes.clone()
        other[:, place] = (codes[:, place] + 1) % 5
        pairs = zip(network(codes, hidden), network(other, hidden), strict=True)
        assert [torch.equal(a, b) for a, b in pairs] == [bool(hidden[0, place])] * 2


def test_the_bound_is_evaluated_as_a_bound(data: Data) -> None:
    model = two_stage()
    few, many = (evaluate(model, data.test, k=k) for k in (1, 20))
    for found in (few, many):
        assert (found.method, found.trusted, found.kl_is_analytic) == ("bound", False, False)
        assert found.nll is not None
        assert found.elbo is not None
        assert found.bits_per_dim is not None
        assert found.nll.value == pytest.approx(-found.elbo.value)
        assert found.bits_per_dim.value == pytest.approx(found.nll.value / (64 * math.log(2)))
        assert found.nll_per_example is not None
        assert "NLL ≤" in found.headline
        assert any("only bounded" in note and f"{found.k} draw" in note for note in found.notes)
        assert any("at most" in note and "uniform codes" in note for note in found.notes)
    assert (few.k, many.k) == (1, 20)
    assert many.kl is not None
    assert few.kl is not None
    assert many.kl.standard_error < few.kl.standard_error  # type: ignore[operator]
    assert evaluate(model, data.test).k == 10
    with pytest.raises(ObjectiveError, match="only a bound"):
        likelihood(model, data.test)
    with pytest.raises(ObjectiveError):
        iwae(model().terms(data.test.batch(torch.arange(3)).x, k=5))


def test_draws_of_an_evaluation_agree_with_all_sets_of_hidden_codes(data: Data) -> None:
    model = two_stage("gumbel-vae")
    x = data.test.batch(torch.arange(8)).x
    z = model.posterior(x).mean
    p = model().prior()
    (codes,) = p.codes_of(z)
    expected = torch.zeros(8)
    for hidden in itertools.product([False, True], repeat=6):
        if m := sum(hidden):
            rows = torch.tensor(hidden).expand(8, -1)
            terms = bound_terms(log_probs_of(p.prior.denoiser(codes, rows), codes), rows).sum(1)
            expected += terms / 6 / math.comb(6, m)
    torch.manual_seed(0)
    with torch.no_grad():
        found = torch.stack([p.lower_bound(z) for _ in range(1000)])
        assert within_error(found.mean(1, keepdim=True).double(), expected.mean().item(), errors=3)
        assert within_error(found.double(), expected.double(), errors=4)


def test_it_learns_the_condition_and_a_training_that_stopped_goes_on_bit_for_bit(
    data: Data, first: Path, tmp_path: Path
) -> None:
    prior, quick = options.MaskedPrior(condition="class", **SMALL), {**QUICK, "steps": 120, "lr": 1e-2}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    result = fit_prior(first, out=whole, prior=prior, data=data, **quick)
    assert result.best_bound is not None
    assert "bound on log p(z)" in result.best_in_words
    assert -result.best_bound < 0.7 * 16 * math.log(6)
    step, calls = PriorStep.forward, 0

    def interrupted(self: PriorStep, *args: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 53:
            raise KeyboardInterrupt
        return step(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PriorStep, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit_prior(first, out=parts, prior=prior, data=data, **quick)
    fit_prior(first, out=parts, prior=prior, data=data, resume=True, **quick)
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    model = tb.load(whole)
    zero, one = (model(Given({"class": torch.full((60, 1), k)})).prior() for k in (0, 1))
    torch.manual_seed(0)
    codes = zero.sample_codes()
    own, other = (p.code_bound(codes).sum(-1).mean() for p in (zero, one))
    assert own > other + 1


# -- what is refused --------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused(data: Data) -> None:
    with pytest.raises(UsageError, match="latents are real-valued"):
        TwoStage(Stage(VAE(latent_dim=2, hidden=(8,))), options.MaskedPrior(**SMALL)).build(data.spec)
    refused: list[dict[str, Any]] = [{"timesteps": 0}, {"layers": 0}, {"heads": 0}, {"dropout": 1.0}]
    for wrong in refused:
        with pytest.raises(UsageError):
            options.MaskedPrior(**wrong)
    with pytest.raises(UsageError, match="at least one step"):
        hidden_counts(4, 0)
    with pytest.raises(UsageError, match="at least one step"):
        Sampling(steps=0)
    with pytest.raises(ShapeError, match="multiple of the heads"):
        TwoStage(Stage(vq()), options.MaskedPrior(width=10, heads=4)).build(data.spec)
    pixelcnn = TwoStage(Stage(vq()), options.PixelCNNPrior(layers=2, channels=8)).build(data.spec)
    for model in (pixelcnn, vq().build(data.spec), VAE(latent_dim=2, hidden=(8,)).build(data.spec)):
        with pytest.raises(UsageError, match="number of steps"):
            model().sample((2,), Sampling(steps=4))
