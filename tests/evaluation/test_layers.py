"""The layers of hierarchies of both kinds, evaluated and diagnosed, against closed forms."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

import tightbound as tb
from models import test_hierarchy as chains
from models import test_top_down as ladders
from models.test_top_down import CHAINS
from tightbound.conditions import Given
from tightbound.data import Data
from tightbound.evaluation import Annealing, Diagnosis, Evaluation, bidirectional, decompose, diagnose, evaluate
from tightbound.evaluation.collapse import layers
from tightbound.evaluation.collapse.dead_layers import dead_layers, why_layers_died
from tightbound.evaluation.collapse.layers import LayerInformation
from tightbound.evaluation.collapse.remedies import fewer_layers
from tightbound.evaluation.collapse.verdict import judge
from tightbound.evaluation.collapse.ways import Symptoms
from tightbound.evaluation.estimate import Estimate
from tightbound.evaluation.log_likelihood.proposals import wide_family, widened
from tightbound.evaluation.numbers import by_layer, rows
from tightbound.models import LatentVariableModel
from tightbound.options.objectives import Elbo
from tightbound.options.priors import MixturePrior
from tightbound.options.training import TrainingOptions
from tightbound.posteriors.base import PackedLayers
from tightbound.posteriors.top_down import ARMS, Merge, Residual
from tightbound.recipes import HVAE, VAE, Ladder, Stage, TwoStage
from tightbound.spec import from_json, to_json


def data_of(model: LatentVariableModel, n: int) -> Data:
    torch.manual_seed(1)
    x = model().sample((n,)).float()
    return Data.from_arrays(x, test=x)


def variances(chain: list[tuple[float, float]]) -> list[float]:
    return chains.variances(chain)


def information(chain: list[tuple[float, float]]) -> list[float]:
    """I(x; z_l) of every layer of a linear-Gaussian chain, from the data up."""
    var, weight, found = variances(chain), 1.0, list[float]()
    for i, (w, _) in enumerate(chain):
        weight *= w  # x = weight z_l and noise
        found.append(-0.5 * math.log(1 - weight**2 * var[i + 1] / var[0]))
    return found


def log_p(chain: list[tuple[float, float]], x: Tensor) -> Tensor:
    return Normal(0.0, math.sqrt(variances(chain)[0])).log_prob(x.double()).flatten()


# -- the likelihood of packed latents -------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, 0.4], ids=["exact", "off"])
@pytest.mark.parametrize("name", ["three layers", "four layers"])
def test_every_method_agrees_with_the_likelihood_of_a_packed_hierarchy(name: str, shift: float) -> None:
    model = ladders.model_of(CHAINS[name], Residual, shift)
    data = data_of(model, 30)
    x, _ = model.see(data.test.batch(torch.arange(30), model.device))
    annealing = Annealing(steps=100, leapfrog=5)
    runs = {
        "auto": {},
        "importance": {"k": 4000},
        "prior": {"k": 4000},
        "annealed": {"k": 16, "annealing": annealing},
    }
    for method, options in runs.items():
        found = evaluate(model, data.test, method=method, **options)  # pyright: ignore
        assert found.nll is not None
        assert found.nll_per_example is not None
        error = found.nll_per_example + log_p(CHAINS[name], x)
        assert abs(error.mean()) < 0.03, method
    if shift:
        assert evaluate(model, data.test).proposals != {"posterior": 30}
    both = bidirectional(model, 30, k=8, annealing=annealing)
    exact = log_p(CHAINS[name], both.x).mean()
    assert both.lower.value - 0.02 < exact < both.upper.value + 0.02
    assert both.gap.value < 0.1


def test_a_chain_is_not_annealed_and_says_why() -> None:
    model = chains.model_of(chains.CHAINS["two layers"])
    found = evaluate(model, data_of(model, 5).test, method="annealed", k=2)
    assert found.nll is None
    assert any("a chain of latents" in note for note in found.notes)


def ladder(**options: object) -> LatentVariableModel:
    torch.manual_seed(0)
    spec = tb.load_data("digits").spec
    return ladders._trained_like(Ladder(channels=8, grids=(1, 4), groups=(1, 2), **options).build(spec)).double()  # pyright: ignore


def test_a_corrected_packed_posterior_is_the_same_in_units_of_its_noise() -> None:
    model = ladder()
    space = model.space
    assert isinstance(space, PackedLayers)
    q = model.posterior(torch.rand(3, 1, 8, 8, dtype=torch.float64))
    free, make = wide_family(q)
    z = q.sample((4,))
    torch.testing.assert_close(make(free).log_prob(z), q.log_prob(z))
    shift, log_scale = torch.randn(2, 3, q.event_shape[0], dtype=torch.float64)
    torch.manual_seed(2)
    corrected = q.corrected(shift, log_scale)
    visit = corrected.visit((5,))
    told = torch.stack([each.log_prob(visit.z[..., space.places[name]]) for name, each in visit.posteriors.items()])
    torch.testing.assert_close(corrected.log_prob(visit.z), told.sum(0))
    twice = corrected.corrected(shift, log_scale)
    top = space.places["z3"]  # above which nothing changes
    torch.testing.assert_close(corrected.mean[:, top], (q.mean + q.stddev * shift)[:, top])
    torch.testing.assert_close(corrected.stddev[:, top], (q.stddev * log_scale.exp())[:, top])
    moved = q.mean + q.stddev * shift + q.stddev * log_scale.exp() * shift
    torch.testing.assert_close(twice.mean[:, top], moved[:, top])
    ratio = (widened(q, 1.2).stddev / q.stddev)[:, top].log()
    torch.testing.assert_close(ratio, torch.full_like(ratio, math.log(1.2) * (3 / 264) ** 0.5))


# -- information ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ARMS)
def test_pairs_are_the_densities_of_the_posterior(arm: str) -> None:
    model = ladder(posterior=arm)
    q = model.posterior(torch.rand(5, 1, 8, 8, dtype=torch.float64))
    pairs = q.pairs()
    assert tuple(pairs) == model.space.inferred == ("z3", "z2", "z1")
    z = model.space.joined({name: z for name, (z, _) in pairs.items()})
    total = torch.stack([log_q for _, log_q in pairs.values()]).sum(0)
    torch.testing.assert_close(total, q.log_prob(z.unsqueeze(1).expand(5, 5, -1)))


@pytest.mark.parametrize("name", ["two layers", "three layers"])
def test_the_information_of_packed_layers_adds_up_to_the_exact_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackedLayers, "most_compared", 1000)
    chain = CHAINS[name]
    model = ladders.model_of(chain, Merge)
    parts = decompose(model, data_of(model, 1000).test)
    told = information(chain)
    assert list(parts.layers) == [f"z{i}" for i in reversed(range(1, len(chain) + 1))]
    for i, layer in enumerate(reversed(parts.layers.values())):
        exact = told[i] - (told[i + 1] if i + 1 < len(told) else 0.0)
        error = layer.information.standard_error or 0.0
        assert abs(layer.information.value - exact) < 4 * error
        assert layer.alone.value > layer.information.value - 4 * error
    assert abs(parts.mutual_information.value - told[0]) < 4 * (parts.mutual_information.standard_error or 0.0)
    total = sum(layer.information.value for layer in parts.layers.values())
    assert total == pytest.approx(parts.mutual_information.value, abs=1e-6)
    assert parts.aggregate_kl is not None
    assert abs(parts.aggregate_kl.value) < 0.05
    assert parts.kl is not None
    assert parts.kl.value > parts.mutual_information.value - 0.05


def test_the_information_of_a_chain_is_that_with_the_layer_below() -> None:
    chain = chains.CHAINS["three layers"]
    model = chains.model_of(chain)
    parts, var = decompose(model, data_of(model, 1000).test), variances(chain)
    assert list(parts.layers) == ["z1", "z2", "z3"]
    for i, ((w, _), layer) in enumerate(zip(chain, parts.layers.values(), strict=True)):
        exact = -0.5 * math.log(1 - w**2 * var[i + 1] / var[i])
        assert abs(layer.information.value - exact) < 4 * (layer.information.standard_error or 0.0) + 0.01


def test_no_more_than_the_logarithm_of_the_examples_is_shown() -> None:
    model = ladders.model_of(CHAINS["sharp layers"], Residual)
    parts = decompose(model, data_of(model, 6).test)
    assert parts.n == 6
    assert sum(layer.information.value for layer in parts.layers.values()) <= math.log(6) + 1e-9


def test_an_exchanged_layer_costs_its_closed_expectation() -> None:
    chain = CHAINS["two layers"]
    (w1, s1), (w2, s2) = chain
    model = chains.model_of(chain)
    use = layers.use_of_layers(model, data_of(model, 500).test)
    var = variances(chain)
    for name, (w, s), v in (("z1", (w1, s1), var[1]), ("z2", (w2, s2), var[2])):
        exact = w**2 * v / s**2  # the mean squared distance of two means, over twice the variance
        assert abs(use[name].value - exact) < 4 * (use[name].standard_error or 0.0)
    packed = ladders.model_of(chain, Residual)
    use = layers.use_of_layers(packed, data_of(packed, 500).test)
    for name, weight in (("z1", w1 * s2), ("z2", w1 * w2)):
        assert abs(use[name].value - weight**2 / s1**2) < 5 * (use[name].standard_error or 0.0)


# -- dead layers ----------------------------------------------------------------------------------------------------


class Prior(nn.Module):
    """A network of an arm whose posterior is the prior."""

    def forward(self, seen: Tensor) -> Tensor:
        return torch.zeros_like(seen[:, :1]).repeat(1, 2, 1, 1)


@pytest.mark.parametrize(("killed", "first"), [((0,), "z3"), ((1,), "z2"), ((0, 2), "z3"), ((), None)])
def test_a_group_that_is_its_prior_is_named(killed: tuple[int, ...], first: str | None) -> None:
    chain = [(1.0, 0.2), (1.0, 0.5), (1.0, 0.9)]
    model = ladders.model_of(chain, Residual)
    for i in killed:
        model.posterior.arms[i].network = Prior()  # pyright: ignore
    found = diagnose(model, data_of(model, 200).test, gap_examples=20, k=50)
    assert found.first_dead == first
    assert found.layers is not None
    assert [layer.name for layer in found.layers] == ["z1", "z2", "z3"]
    assert [layer.dead for layer in reversed(found.layers)] == [i in killed for i in range(3)]
    if first is None:
        assert found.verdict == "healthy"
        return
    assert found.verdict == "partial collapse"
    assert first in found.cause
    dead = next(layer for layer in found.layers if layer.name == first)
    assert dead.kl == 0.0
    assert dead.active_units == 0


class Constant(nn.Module):
    """A posterior that is the same whatever it is given."""

    def forward(self, x: Tensor, c: Given | None = None) -> Distribution:
        return Independent(Normal(torch.zeros_like(x), torch.ones_like(x)), 1)


def test_the_top_of_a_chain_that_ignores_what_is_below_is_named() -> None:
    chain = [(1.0, 0.2), (1.0, 0.5), (1.0, 0.9)]
    model = chains.model_of(chain)
    data = data_of(model, 300)
    healthy = diagnose(model, data.test, gap_examples=20, k=50)
    assert (healthy.verdict, healthy.first_dead) == ("healthy", None)
    model.prior.posterior = Constant()  # pyright: ignore
    found = diagnose(model, data.test, gap_examples=20, k=50)
    assert (found.verdict, found.first_dead) == ("partial collapse", "z2")
    assert "z3" in found.cause
    assert found.layers is not None
    assert found.layers[0].dead is False
    assert found.layers[1].information.value < 0.05


NONE, SOME = (
    LayerInformation(Estimate(0.0, 0.0), Estimate(0.0, 0.0)),
    LayerInformation(Estimate(1.0, 0.0), Estimate(1.0, 0.0)),
)


def test_a_kl_below_the_top_of_a_chain_kills_nothing() -> None:
    told, use = {"z1": SOME, "z2": SOME}, {"z1": 5.0, "z2": 5.0}
    assert dead_layers(told, {"z1": -0.1, "z2": 2.0}, use, adds_up=False) == {}
    assert list(dead_layers(told, {"z1": 2.0, "z2": 0.05}, use, adds_up=False)) == ["z2"]
    assert list(dead_layers(told, {"z1": 2.0, "z2": 2.0}, use | {"z1": 0.0}, adds_up=True)) == ["z1"]
    assert list(dead_layers(told | {"z2": NONE}, {"z1": 2.0, "z2": 2.0}, use, adds_up=True)) == ["z2"]


def test_a_layer_without_a_kl_of_its_own_is_judged_by_the_rest() -> None:
    told, use = {"z2": SOME, "z1": SOME}, {"z1": 5.0, "z2": 5.0}
    assert dead_layers(told, {}, use, adds_up=True) == {}
    assert list(dead_layers(told | {"z1": NONE}, {}, use, adds_up=True)) == ["z1"]
    assert list(dead_layers(told, {}, use | {"z2": 0.0}, adds_up=True)) == ["z2"]


def symptoms(recipe: object, names: str, dead: str, adds_up: bool) -> Symptoms:
    return Symptoms(
        kl=20.0,
        mutual_information=4.0,
        decoder_use=50.0,
        active=5,
        dimensions=20,
        layers=tuple(names.split()),
        dead=dict.fromkeys(dead.split(), "its KL is 0.01 nats"),
        adds_up=adds_up,
        recipe=recipe,  # pyright: ignore
        data=tb.load_data("digits").spec,
    )


@pytest.mark.parametrize(
    ("recipe", "names", "dead", "remedy"),
    [
        (HVAE(layers=(16, 8, 4)), "z1 z2 z3", "z3", "--layers 16 8"),
        (HVAE(layers=(16, 8, 4), hidden=(32, 16, 16)), "z1 z2 z3", "z2 z3", "--layers 16 --hidden 32"),
        (Ladder(grids=(1, 4), groups=(2, 3)), "z5 z4 z3 z2 z1", "z5 z3", "--groups 1 2"),
        (Ladder(grids=(1, 4), groups=(2, 3)), "z5 z4 z3 z2 z1", "z5 z4 z1", "--grids 4 --groups 2"),
        (Ladder(grids=(1, 4), groups=(2,)), "z4 z3 z2 z1", "z4", "--groups 1 2"),
        (Ladder(), "z6 z5 z4 z3 z2 z1", "z6", "--groups 1 4"),
    ],
)
def test_fewer_layers_are_suggested_with_a_value(recipe: object, names: str, dead: str, remedy: str) -> None:
    s = symptoms(recipe, names, dead, adds_up=isinstance(recipe, Ladder))
    cause, ways = why_layers_died(s)
    assert dead.split()[0] in cause
    assert remedy in ways
    assert "--free-bits 0.5 --free-bits-group 0" in ways


def test_layers_of_a_ladder_can_be_balanced_and_those_of_a_chain_cannot() -> None:
    for recipe, names, adds_up in (
        (Ladder(grids=(1, 4), groups=(1,)), "z2 z1", True),
        (HVAE(layers=(8, 4)), "z1 z2", False),
    ):
        s = symptoms(recipe, names, names.split()[adds_up ^ 1], adds_up)
        known = dataclasses.replace(s, training=TrainingOptions(beta_warmup=1.0))
        assert why_layers_died(known)[1].endswith("in warm-up: --balance") is adds_up


def test_a_heavy_kl_is_blamed_first() -> None:
    s = symptoms(HVAE(layers=(8, 4), objective=Elbo(beta=10.0)), "z1 z2", "z2", adds_up=False)
    cause, ways = why_layers_died(s)
    assert "weight of 10" in cause
    assert ways.startswith("lower the weight: --beta 1")


def test_no_layer_is_left_out_of_a_model_that_has_one() -> None:
    assert fewer_layers(symptoms(HVAE(layers=(8,)), "z1", "z1", adds_up=False)) is None
    assert fewer_layers(symptoms(Ladder(grids=(2, 4), groups=(1,)), "z2 z1", "z1", adds_up=True)) is None
    assert why_layers_died(symptoms(None, "z1 z2", "z2", adds_up=False))[1].endswith("use fewer layers")


@pytest.mark.parametrize(
    ("recipe", "names", "remedy"),
    [
        (HVAE(layers=(16, 8, 4)), "z1 z2 z3", "use fewer layers: --layers 16"),
        (Ladder(grids=(1, 4), groups=(2, 2)), "z4 z3 z2 z1", "use fewer layers: --grids 4 --groups 1"),
        (None, "z1 z2", "use fewer layers"),
    ],
)
@pytest.mark.parametrize("kl", [0.01, 20.0])
def test_a_collapsed_hierarchy_names_its_first_dead_layer(recipe: object, names: str, remedy: str, kl: float) -> None:
    s = symptoms(recipe, names, names, adds_up=isinstance(recipe, Ladder))
    nothing = dataclasses.replace(s, kl=kl, mutual_information=0.01, decoder_use=0.0, training=TrainingOptions())
    verdict, cause, ways = judge(nothing)
    assert verdict == "collapsed"
    assert f"{names.split()[0]} is the first dead layer" in cause
    assert ways.endswith(remedy)


FAR = (30.0, 40.0)


@pytest.mark.parametrize(
    ("recipe", "names", "remedy"),
    [
        (Ladder(channels=8, grids=(1, 4), groups=(1, 1)), "z2 z1", "tightbound fit-prior RUN --prior flow"),
        (HVAE(layers=(8, 4)), "z1 z2", "--prior mixture"),
        (HVAE(layers=(8,)), "", "--prior mixture"),
        (HVAE(layers=(8, 4), prior="mixture"), "z1 z2", "--prior coupling"),
        (TwoStage(Stage(Ladder(channels=8, grids=(1, 4), groups=(1, 1))), MixturePrior()), "z2 z1", "--prior flow"),
    ],
)
def test_a_prior_unlike_the_codes_is_fitted_or_made_richer(recipe: object, names: str, remedy: str) -> None:
    adds_up = names.startswith("z2")
    verdict, _, ways = judge(dataclasses.replace(symptoms(recipe, names, "", adds_up), mismatch=FAR))
    assert verdict == "under-regularised"
    assert remedy in ways
    assert "vae" not in ways
    assert ("fit-prior" in ways) is isinstance(recipe, Ladder)


# -- reported -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> Data:
    return tb.load_data("digits")


def diagnosed(recipe: object, data: Data) -> Diagnosis:
    torch.manual_seed(0)
    model = recipe.build(data.spec)  # pyright: ignore
    return diagnose(model, data.test.subset(60), gap_examples=4, k=5)


@pytest.mark.parametrize("recipe", [HVAE(layers=(6, 3), hidden=(8,)), Ladder(channels=8, grids=(1, 4), groups=(1, 1))])
def test_a_diagnosis_of_layers_is_written_and_read(digits: Data, recipe: object) -> None:
    found = diagnosed(recipe, digits)
    assert found.layers is not None
    again = from_json(json.loads(json.dumps(to_json(found))), Diagnosis)
    assert again == found
    assert again.layers is not None
    assert again.layers[0] == found.layers[0]


def test_older_diagnoses_are_read(digits: Data) -> None:
    new = to_json(diagnosed(VAE(latent_dim=2), digits))
    assert new["version"] == 3
    old = {name: value for name, value in new.items() if name not in ("layers", "first_dead", "compared")}
    found = from_json(json.loads(json.dumps(old | {"version": 2})), Diagnosis)
    assert found.layers is None
    assert f"ln {found.n}" in str(found.facts["ceiling"])


def test_older_evaluations_of_a_chain_say_whose_the_active_units_were(digits: Data) -> None:
    new = to_json(evaluate(HVAE(layers=(6, 3), hidden=(8,)).build(digits.spec), digits.test.subset(20), k=2))
    assert new["dimensions_per_layer"] == {"z1": 6, "z2": 3}
    old = {name: value for name, value in new.items() if not name.endswith("_per_layer")}
    found = from_json(old | {"version": 2, "active_units": 5, "dimensions": 6}, Evaluation)
    assert (found.active_per_layer, found.dimensions_per_layer) == ({"z1": 5}, {"z1": 6})
    assert "z1 5/6" in {row.text for row in rows(found)}


def test_twenty_layers_fit_in_lines() -> None:
    lines = by_layer({f"z{i}": f"{i / 3:.2f}" for i in range(1, 21)}).split("\n")
    assert len(lines) == 4
    assert lines[0] == "z1-z5: 0.33 0.67 1.00 1.33 1.67"
    assert max(map(len, lines)) < 40
