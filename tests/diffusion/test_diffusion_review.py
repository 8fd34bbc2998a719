"""Samples, guidance and the bounds of both models of a diffusion, as a hostile user would ask for them."""

import math
import weakref
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from tightbound.conditions import ClassCondition, Given
from tightbound.data import Data
from tightbound.diffusion import Diffusion, Linear, Sampler, grid
from tightbound.diffusion.classifier import GuidedDiffusion, NoisyClassifier
from tightbound.diffusion.denoiser import Denoiser, Moments
from tightbound.diffusion.ode import log_likelihood
from tightbound.diffusion.oracles import GaussianOracle, MixtureOracle
from tightbound.diffusion.sampler import SamplingError
from tightbound.distributions import Sampling
from tightbound.errors import UsageError
from tightbound.evaluation import diffusion as evaluation
from tightbound.evaluation.levels import diagnose_levels
from tightbound.options.data_spec import DataSpec
from tightbound.recipes import DDPM, VDM, NoisyClassifierRecipe
from tightbound.training.start import build_seeded

DIGITS = DataSpec("digits", shape=(1, 8, 8), levels=17)


class CountedDenoiser(Denoiser):
    """Expects zeros, and counts which of them are still held."""

    def __init__(self) -> None:
        super().__init__()
        self.held, self.most = list[weakref.ref[Tensor]](), 0

    def forward(self, x: Tensor, sigma: Tensor, c: Given | None = None) -> Tensor:
        found = torch.zeros_like(x)
        self.held = [each for each in self.held if each() is not None] + [weakref.ref(found)]
        self.most = max(self.most, len(self.held))
        return found


def test_a_sampler_holds_the_last_steps_only() -> None:
    counted = CountedDenoiser()
    Sampler("2m", grid(Linear(-5.0, 5.0), 50))(counted, lambda: torch.zeros(1, 2))
    Diffusion(counted, Linear(-5.0, 5.0), (2,))().sample((2,), Sampling(steps=50))
    assert counted.most < 10


@pytest.mark.parametrize("options", [{"schedule": "zero-terminal"}, {"schedule": "cosine", "last_gamma": "pure-noise"}])
@pytest.mark.parametrize("predicts", ["noise", "score"])
def test_from_pure_noise_a_network_cannot_predict_the_noise(options: dict[str, Any], predicts: Any) -> None:
    with pytest.raises(UsageError, match="pure noise"):
        DDPM(timesteps="continuous", predicts=predicts, **options)
    model = DDPM(timesteps="continuous", predicts="v", channels=(8,), blocks=1, **options).build(DIGITS)
    assert model().sample((2,), Sampling(steps=3)).isfinite().all()


class LostDenoiser(Denoiser):
    """Not a number at little noise."""

    def forward(self, x: Tensor, sigma: Tensor, c: Given | None = None) -> Tensor:
        return torch.where(sigma < 1, torch.nan, 0 * x)


@pytest.mark.parametrize("sampler", ["2m", "adaptive"])
def test_numbers_that_are_lost_are_named_with_their_noise(sampler: str) -> None:
    with pytest.raises(SamplingError, match=r"(?s)(step|evaluation) \d+ .*sigma = 0\.\d"):
        Diffusion(LostDenoiser(), Linear(-9.0, 10.0), (2,))().sample((4,), Sampling(sampler=sampler))


@pytest.mark.parametrize("steps", [None, 20])
def test_numbers_that_are_lost_have_no_likelihood(steps: int | None) -> None:
    with pytest.raises(SamplingError, match=r"sigma = 0\.\d"):
        log_likelihood(LostDenoiser(), torch.zeros(2, 2), sigmas=(0.01, 10.0), steps=steps)


MEANS = torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=torch.float64)
MIXTURE = MixtureOracle(MEANS, 0.4, torch.tensor([0.3, 0.7], dtype=torch.float64))


class ExactClasses(nn.Module):
    """The log-probabilities of a mixture's components, from inputs of unit variance."""

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        sigma = (gamma / 2).exp()
        return MIXTURE.log_joint(z * (1 + sigma[:, None] ** 2).sqrt(), sigma)


def guided_by_classes() -> tuple[Diffusion, GuidedDiffusion, Given]:
    """A mixture in units of its own, guided by its exact classifier to the second component."""
    units = {"shift": 3.0, "scale": 2.0}
    model = Diffusion(MIXTURE, Linear(-9.0, 10.0), (2,), **units)  # pyright: ignore[reportArgumentType]
    classifier = NoisyClassifier(ExactClasses(), Linear(-9.0, 10.0), ClassCondition(("a", "b")), **units)
    c = Given({"class": torch.ones(500, 1, dtype=torch.long)})
    return model, GuidedDiffusion(model, classifier), c


@pytest.mark.parametrize("level", [0.02, 0.5, 4.0])
def test_a_guided_model_with_an_exact_classifier_is_the_conditional_one(level: float) -> None:
    model, guided, c = guided_by_classes()
    denoise = cast(Any, guided(c)).guide.guiding(model.denoiser, c, Sampling())
    x, sigma = 3 * torch.randn(500, 2, dtype=torch.float64), torch.tensor(level, dtype=torch.float64)
    torch.testing.assert_close(denoise(x, sigma), MixtureOracle(MEANS[1:], 0.4)(x, sigma), rtol=0, atol=1e-10)


def test_a_classifier_guides_in_its_interval_only() -> None:
    model, guided, c = guided_by_classes()
    guide = cast(Any, guided(c)).guide
    once, thrice, within = (
        guide.guiding(model.denoiser, c, how)
        for how in (Sampling(), Sampling(guidance=3.0), Sampling(guidance=3.0, interval=(0.5, 2.0)))
    )
    x = torch.randn(500, 2, dtype=torch.float64)
    for level, same in ((0.2, once), (1.0, thrice), (5.0, once)):
        sigma = torch.tensor(level, dtype=torch.float64)
        torch.testing.assert_close(within(x, sigma), same(x, sigma), rtol=0, atol=1e-12)


def test_guidance_needs_a_condition_that_training_dropped() -> None:
    data = Data.from_arrays(torch.rand(20, 2).numpy(), labels=torch.arange(20).remainder(2).numpy())
    for share, refused in ((0.0, True), (0.1, False)):
        model = VDM(condition="class", drop_condition=share, channels=(8,), blocks=1).build(data.spec)
        px = cast(Any, model(Given({"class": torch.ones(3, 1, dtype=torch.long)})))
        if not refused:
            assert px.sample((), Sampling(guidance=2.0, steps=2)).shape == (3, 2)
            continue
        with pytest.raises(UsageError):
            px.sample((), Sampling(guidance=2.0, steps=2))


def test_a_guide_has_no_conditions_that_the_model_lacks() -> None:
    data = Data.from_arrays(torch.rand(20, 2).numpy(), labels=torch.arange(20).remainder(2).numpy()).spec
    free, given = (VDM(condition=each, channels=(8,), blocks=1).build(data) for each in ("none", "class"))
    c = Given({"class": torch.ones(3, 1, dtype=torch.long)})
    assert cast(Any, GuidedDiffusion(given, free)(c)).sample((), Sampling(guidance=2.0, steps=2)).shape == (3, 2)
    with pytest.raises(UsageError, match="other conditions"):
        GuidedDiffusion(free, given)


# -- the bound, and that of the flow --------------------------------------------------------------------------------


def excess(model: Diffusion, x: Tensor, log_prob: Tensor, flow: bool) -> tuple[float, float]:
    """Nats for each dimension by which a bound is too high, and its standard error."""
    with torch.no_grad():
        if flow:
            found = evaluation._flow(model, x, None, None)["flow"]  # pyright: ignore[reportPrivateUsage]
        else:
            terms = cast(Any, model()).terms(x, 64)
            found = terms.log_likelihood.mean(0) - terms.kl()
    worse = (log_prob - found) / x[0].numel()
    return worse.mean().item(), worse.std().item() / len(x) ** 0.5


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_bound_and_flow_agree_where_the_network_is_exact(kind: str, flow: bool) -> None:
    torch.manual_seed(0)
    covariance = torch.tensor([[0.5, 0.2], [0.2, 0.9]], dtype=torch.float64)
    oracle = GaussianOracle(MEANS[1], covariance) if kind == "gaussian" else MIXTURE
    x = oracle.sample(1500)
    model = Diffusion(oracle, Linear(-12.0, 10.0), (2,), moments=Moments(x.mean(0), x.std(0))).eval()
    mean, error = excess(model, x, oracle.log_prob(x, torch.tensor(1e-9, dtype=torch.float64)), flow)
    assert abs(mean) < 1e-3 + 3 * error


@pytest.mark.parametrize(("levels", "d"), [(2, 3), (17, 2)])
def test_the_bound_of_the_flow_holds_for_discrete_data(levels: int, d: int) -> None:
    torch.manual_seed(0)
    axis = torch.linspace(-1, 1, levels, dtype=torch.float64)
    points = torch.cartesian_prod(*[axis] * d)
    oracle = MixtureOracle(points, weights=torch.rand(len(points), dtype=torch.float64).square())
    chosen = torch.multinomial(oracle.log_weights.exp(), 1000, replacement=True)
    first = 2 * math.log(2 / (levels - 1) / 7)
    model = Diffusion(oracle, Linear(first, 10.0), (d,), levels=levels, shift=0.5, scale=0.5).double().eval()
    x, log_prob = (points[chosen] + 1) / 2, oracle.log_weights[chosen]
    mean, error = excess(model, x, log_prob, flow=True)
    assert -3 * error < mean < 1e-3 + 3 * error


def test_a_classifier_guides_a_model_that_can_do_without_its_class() -> None:
    """As if its class had been dropped: the same samples as of the model without it."""
    classes = tuple("ab")
    data = DataSpec("points", shape=(2,), levels=None, classes=classes)
    classifier = build_seeded(NoisyClassifierRecipe(channels=(8,)), data, 0)
    model = build_seeded(VDM(channels=(8,), condition="class"), data, 0)
    nn.init.normal_(model.denoiser.network.leave.weight)
    nn.init.normal_(classifier.network.leave.weight)
    c = Given({"class": torch.tensor([[0], [1], [1]])})
    guided = GuidedDiffusion(model, classifier)
    gone = lambda strength: guided(c).sample((), Sampling(steps=5, guidance=strength), seed=0)
    dropped = model(c.missing()).sample((), Sampling(steps=5), seed=0)
    torch.testing.assert_close(gone(0.0), dropped)
    assert (gone(2.0) - dropped).abs().max() > 0.01
    strict = build_seeded(VDM(channels=(8,), condition="class", drop_condition=0.0), data, 0)
    with pytest.raises(UsageError, match="do without its class"):
        GuidedDiffusion(strict, classifier)


@pytest.mark.parametrize(("end", "warned"), [(-2.0, True), (10.0, False)])
def test_a_schedule_that_does_not_reach_noise_is_warned_of(end: float, warned: bool) -> None:
    data = Data.from_arrays(torch.rand(20, 2).numpy())
    model = VDM(first_gamma=-8.0, last_gamma=end, channels=(8,), blocks=1).build(data.spec)
    notes = evaluation.evaluate_diffusion(cast(Any, model), data.train)[0].notes
    assert any("does not reach noise" in note for note in notes) == warned


def test_both_models_are_evaluated_and_agree_where_the_network_is_exact() -> None:
    torch.manual_seed(0)
    oracle = GaussianOracle(torch.zeros(2), torch.tensor([0.5, 2.0]))
    data = Data.from_arrays(oracle.sample(300).numpy(), standardize="none")
    model = Diffusion(oracle, Linear(-12.0, 10.0), (2,), moments=Moments(std=torch.tensor([0.5, 2.0]).sqrt()))
    found, values = cast(Any, evaluation.evaluate_diffusion(model, data.train, method="ode"))
    exact = -oracle.log_prob(data.train.batch(torch.arange(len(data.train)), "cpu").x, torch.tensor(0.0)).mean().item()
    assert len(values["elbo"]) == len(data.train)
    assert abs(found.nll.value - exact) < 0.02
    assert abs(-found.elbo.value - exact) < 0.02 + 3 * found.elbo.standard_error
    with pytest.raises(UsageError, match="no latents"):
        evaluation.evaluate_diffusion(model, data.train, method="annealed")


@pytest.mark.parametrize(("ends", "word"), [((-8.0, -2.0), "--last-gamma"), ((-12.0, 10.0), "")])
def test_a_diagnosis_names_an_end_that_comes_too_early(ends: tuple[float, float], word: str) -> None:
    torch.manual_seed(0)
    oracle = GaussianOracle(torch.zeros(2), torch.ones(2))
    data = Data.from_arrays(oracle.sample(300).numpy())
    found = diagnose_levels(Diffusion(oracle, Linear(*ends), (2,)), data, data.test)
    assert any("most noise" in remark and "--last-gamma" in remark for remark in found.remarks) == bool(word)
    assert len(found.nats) == len(found.edges) - 1
