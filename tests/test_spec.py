"""Specs: to JSON and back without loss, every field checked, and no name in a file that could run."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from instances import HIERARCHIES, SPECS, SYSTEMS, system_id
from tightbound import spec
from tightbound.data import DataOptions, DataSpec
from tightbound.encoders.contrastive import ContrastiveConfig
from tightbound.errors import CheckpointError, UnknownName, UsageError
from tightbound.evaluation import DecoderNoise, Diagnosis, Estimate, Evaluation, SampleQuality
from tightbound.evaluation.collapse.layer import Layer
from tightbound.evaluation.levels import LevelDiagnosis
from tightbound.evaluation.samples.features import FeatureSource
from tightbound.options.adversarial import Adversarial
from tightbound.options.direct import DiffusionBound, LogLikelihood, NoisyClassification
from tightbound.options.objectives import (
    Capacity,
    Elbo,
    Gsnn,
    Hybrid,
    Iwae,
    LogPrior,
    Mmd,
    NaiveMonteCarlo,
    Quantized,
    Reconstruction,
    Score,
    StickingTheLanding,
    TotalCorrelation,
)
from tightbound.options.priors import (
    DiffusionPrior,
    FlowPrior,
    MaskedPrior,
    MixturePrior,
    PixelCNNPrior,
    TransformerPrior,
)
from tightbound.options.published import PublishedQuantized, WeakKL
from tightbound.recipes import (
    CVAE,
    DDPM,
    DVAE,
    EDM,
    VAE,
    VDM,
    VQVAE,
    VQVAE2,
    Completion,
    CompletionBaseline,
    GumbelVAE,
    KLAutoencoder,
    LinearVAE,
    NoisyClassifierRecipe,
    PixelCNNRecipe,
    Recipe,
    RectifiedFlow,
    ScoreSDE,
    Stage,
    TransformerRecipe,
    TwoStage,
    VQAutoencoder,
)
from tightbound.runs import RunConfig
from tightbound.spec import from_json, kind_of, register, registered, require_choices, to_json, upgrade
from tightbound.training import TrainingOptions


@pytest.fixture(autouse=True)
def closed_registry() -> Iterator[None]:
    """A test may register kinds; the next one must not see them."""
    kinds, upgrades, records = dict(spec._kinds), dict(spec._upgrades), set(spec._records)
    yield
    spec._kinds.clear()
    spec._kinds.update(kinds)
    spec._upgrades.clear()
    spec._upgrades.update(upgrades)
    spec._records.clear()
    spec._records.update(records)


def through_json(value: Any, base: Any = object) -> Any:
    return from_json(json.loads(json.dumps(to_json(value), allow_nan=False)), base)


ONE, ALONE = Estimate(-1.5, 0.25), Estimate(2.0, None)
NOISE = DecoderNoise(0.1, error=0.2, data_std=0.3, fixed=True)
FEATURES = FeatureSource("EfficientNet-Lite0", "57934424", "64 × 64, as they are", 1280)
QUALITY = SampleQuality(samples=ONE, data=ALONE, n=7, features=FEATURES, split="test", notes=("few",))
MEASURED: dict[str, Any] = {"reconstruction": ALONE, "method": "auto", "k": 5, "n": 1, "split": "test"}
MEASURED |= {"active_units": 0, "measure": "mass", "notes": ("a probability",)}
DIAGNOSIS = Diagnosis(
    verdict="healthy",
    cause="a",
    remedy="b",
    carrying=(0, 2),
    active_units=2,
    dimensions=3,
    **dict.fromkeys(("reconstruction", "kl", "mutual_information", "mutual_information_at_most", "decoder_use"), ONE),
    n=9,
    fit_n=0,
    k=1,
    split="test",
    measure="none",
    notes=(),
    gap=ALONE,
    kl_per_dimension={"z": (1.0, 0.0, 0.5)},
)
LAYER = Layer(name="z2", kl=0.5, information=ONE, alone=ONE, decoder_use=ONE, active_units=1, dimensions=4, dead=False)

OPTIONS: list[Any] = [
    *SPECS,
    LAYER,
    *(
        Capacity(capacity=5.0),
        Elbo(beta=2),
        Gsnn(),
        Hybrid(share=0.2),
        Iwae(gradient="dreg"),
        LogLikelihood(),
        DiffusionBound(weight="min-snr"),
        LogPrior(),
    ),
    *(
        Mmd(mmd=3.0),
        NaiveMonteCarlo(samples=7),
        Quantized(codebook=0.0),
        Reconstruction(),
        Score(),
        StickingTheLanding(),
    ),
    TotalCorrelation(divergence="analytic"),
    DataOptions(),
    DataOptions("mnist", binarize="dynamic", flip=True, image_size=32, color="rgb", validation=0, split_seed=7),
    TrainingOptions(),
    TrainingOptions(steps=5, lr=1, clip_norm=2, patience=3, precision="64-true", device="cuda:1", compile=True),
    CVAE(condition="text", caption_length=8, objective=Hybrid(share=0.5)),
    Completion(quadrants=3, baseline="runs/baseline"),
    CompletionBaseline(quadrants=2, hidden=()),
    GumbelVAE(latents="binary", prior="learned"),
    DVAE(codes=16, channels=(8,)),
    VQVAE(quantizer="fsq", fsq_levels=(3, 4)),
    VQVAE2(codes=7),
    PixelCNNRecipe(attention_every=2),
    TransformerRecipe(condition="class"),
    *(VDM(last_gamma=5), DDPM(timesteps=10), ScoreSDE(channels=(8,)), EDM(weight="edm2"), RectifiedFlow(patch=2)),
    NoisyClassifierRecipe(channels=(8,)),
    *(KLAutoencoder(latent_channels=8), VQAutoencoder(codes=64)),
    *(WeakKL(weight=1e-3), PublishedQuantized(commitment=0.5), Adversarial(game="hinge", weight=0.3)),
    NoisyClassification(),
    LevelDiagnosis((-8.0, 0.0, 8.0), (1.0, 3.0), (1.0, 2.5), 0.0, -0.1, 4, 10, "test", ("A remark.",)),
    PixelCNNPrior(attention_every=2),
    MaskedPrior(timesteps=8),
    DiffusionPrior(layers=2),
    TransformerPrior(condition="text", text_positions="rotary"),
    MixturePrior(components=3),
    FlowPrior(transforms=2),
    Stage(VAE(hidden=()), training=TrainingOptions(epochs=3)),
    TwoStage(Stage(VQVAE(codes=5)), PixelCNNPrior(condition="class")),
    TwoStage(Stage(VAE(hidden=())), FlowPrior()),
    ContrastiveConfig((3, 8, 8)),
    ONE,
    NOISE,
    FEATURES,
    QUALITY,
    Evaluation(**MEASURED, nll=ONE, kl_per_dimension={"z1": (0.5,), "z2": (1.0, 0.25)}, decoder_noise=NOISE),
    Evaluation(**MEASURED, proposals={"posterior": 3}, sample_quality=QUALITY, trusted=False, dimensions=2),
    DIAGNOSIS,
    RunConfig(SPECS[0], TrainingOptions()),
    RunConfig(SPECS[0], TrainingOptions(), VAE(hidden=()), DataOptions(dequantize=True), "0.1.0"),
]


@pytest.mark.parametrize("value", OPTIONS, ids=lambda value: type(value).__name__)
def test_round_trip(value: Any) -> None:
    assert through_json(value) == value
    assert type(through_json(value)) is type(value)


@pytest.mark.parametrize("system", [*SYSTEMS, *HIERARCHIES], ids=system_id)
def test_round_trip_of_recipes(system: tuple[Recipe, DataSpec]) -> None:
    config = RunConfig(system[1], TrainingOptions(), system[0])
    assert through_json(config, RunConfig) == config


def test_every_registered_kind_is_tested() -> None:
    tested = {type(value) for value in OPTIONS} | {type(recipe) for recipe, _ in (*SYSTEMS, *HIERARCHIES)}
    ours = {cls for cls in registered(object).values() if cls.__module__.startswith("tightbound.")}
    assert ours == tested


def test_what_is_written_names_its_kind_and_version() -> None:
    written = to_json(LinearVAE(latent_dim=3))
    assert written["kind"] == kind_of(LinearVAE()) == "linear-vae"
    assert written["version"] == 1
    assert written["latent_dim"] == 3
    assert to_json(VAE(hidden=(4, 5)))["hidden"] == [4, 5]


def test_fields_left_out_have_their_defaults() -> None:
    assert from_json({"kind": "vae", "version": 2, "latent_dim": 3}, Recipe) == VAE(latent_dim=3)


UPSAMPLING = [r for r, _ in SYSTEMS if hasattr(r, "upsampling") and getattr(r, "posterior", "") != "dirac"]


@pytest.mark.parametrize("recipe", UPSAMPLING, ids=kind_of)
def test_recipes_written_before_there_was_a_choice_of_upsampling_mean_the_transposed_one(recipe: Any) -> None:
    written = {name: value for name, value in to_json(recipe).items() if name != "upsampling"}
    assert recipe.upsampling == "resize"
    assert from_json(written, Recipe) == recipe
    written = {name: value for name, value in written.items() if name != "objective"}
    recipe, old = from_json(written, Recipe), from_json({**written, "version": 1}, Recipe)
    doubles = getattr(recipe, "network", "convolutional") == "convolutional"
    assert old == (dataclasses.replace(recipe, upsampling="transposed") if doubles else recipe)
    assert from_json(to_json(old), Recipe) == old


def test_integers_are_numbers() -> None:
    options = from_json({"kind": "training-options", "version": 1, "lr": 1}, TrainingOptions)
    assert options.lr == 1.0
    assert type(options.lr) is float


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_dim": "3"}, "latent_dim"),
        ({"latent_dim": 3.5}, "latent_dim"),
        ({"latent_dim": True}, "latent_dim"),
        ({"latent_dim": None}, "latent_dim"),
        ({"beta": "1"}, "beta"),
        ({"beta": False}, "beta"),
        ({"hidden": 4}, "hidden"),
        ({"hidden": [4, "5"]}, "hidden"),
        ({"hidden": {"0": 4}}, "hidden"),
        ({"network": "transformer"}, "network"),
        ({"network": ["mlp"]}, "network"),
        ({"latentdim": 3}, "latentdim"),
        ({"version": 99}, "newer"),
        ({"version": "1"}, "version"),
        ({"version": True}, "version"),
        ({"version": None}, "version"),
        ({"version": 0}, "version"),
        ({"version": 1.0}, "version"),
    ],
)
def test_damaged_fields_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        from_json({**to_json(VAE()), **changes}, Recipe)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("data-spec", {"shape": [1, "8"]}),
        ("data-spec", {"levels": 2.5}),
        ("data-spec", {"classes": "ab"}),
        ("training-options", {"compile": 1}),
        ("training-options", {"steps": "5"}),
        ("run", {"data_spec": None}),
        ("run", {"recipe": {"kind": "data-options", "version": 1}}),
        ("run", {"recipe": []}),
    ],
)
def test_wrong_types_in_every_kind_are_refused(kind: str, changes: dict[str, Any]) -> None:
    value = next(to_json(value) for value in OPTIONS if kind_of(value) == kind)
    with pytest.raises(CheckpointError):
        from_json({**value, **changes}, object)


def test_a_missing_field_is_named() -> None:
    value = to_json(SPECS[0])
    del value["shape"]
    with pytest.raises(CheckpointError, match="lacks the field 'shape'"):
        from_json(value, DataSpec)


@pytest.mark.parametrize("kind", [None, 3, ["vae"], {"vae": 1}, "", "VAE"])
def test_unknown_kinds_are_refused(kind: Any) -> None:
    with pytest.raises(UnknownName):
        from_json({"kind": kind, "version": 1}, Recipe)


def test_the_nearest_kind_is_offered() -> None:
    with pytest.raises(UnknownName, match="linear-vae"):
        from_json({"kind": "linear-vea", "version": 1}, Recipe)


def test_another_kind_is_refused() -> None:
    with pytest.raises(CheckpointError, match="Recipe"):
        from_json(to_json(SPECS[0]), Recipe)


@pytest.mark.parametrize(
    "kind",
    [
        "this",
        "antigravity",
        "os.system",
        "builtins.eval",
        "tightbound.cli.main",
        "__main__",
        "tightbound.recipes.vae.VAE",
    ],
)
def test_no_name_in_a_file_is_imported(kind: str) -> None:
    before = set(sys.modules)
    for value in (
        {"kind": kind, "version": 1},
        {**to_json(RunConfig(SPECS[0], TrainingOptions(), VAE())), "recipe": {"kind": kind, "version": 1}},
    ):
        with pytest.raises((UnknownName, CheckpointError)):
            from_json(value, object)
    assert set(sys.modules) == before


def test_values_out_of_range_are_refused_when_read_too() -> None:
    with pytest.raises(UsageError):
        from_json({**to_json(VAE()), "latent_dim": -3}, Recipe)


def test_old_versions_are_upgraded_step_by_step() -> None:
    @register("test-kind", version=3)
    @dataclass(frozen=True)
    class Kind:
        width: int
        depth: int = 2

    @upgrade("test-kind", version=1)
    def _(fields: dict[str, Any]) -> dict[str, Any]:
        return {"size": fields["n"]}

    @upgrade("test-kind", version=2)
    def _(fields: dict[str, Any]) -> dict[str, Any]:
        return {"width": 2 * fields["size"]}

    assert from_json({"kind": "test-kind", "version": 1, "n": 4}, Kind) == Kind(8)
    assert from_json({"kind": "test-kind", "version": 2, "size": 4}, Kind) == Kind(8)
    assert from_json({"kind": "test-kind", "version": 3, "width": 4}, Kind) == Kind(4)
    assert to_json(Kind(4))["version"] == 3
    with pytest.raises(CheckpointError, match="newer"):
        from_json({"kind": "test-kind", "version": 4, "width": 4}, Kind)


def test_a_version_without_an_upgrade_is_refused() -> None:
    @register("test-kind", version=2)
    @dataclass(frozen=True)
    class Kind:
        width: int = 1

    with pytest.raises(CheckpointError, match="too old"):
        from_json({"kind": "test-kind", "version": 1}, Kind)


def test_a_kind_is_registered_once() -> None:
    with pytest.raises(UsageError, match="registered already"):

        @register("vae")
        @dataclass(frozen=True)
        class Other:
            pass

    @dataclass(frozen=True)
    class Unregistered:
        pass

    with pytest.raises(UsageError, match="not registered"):
        to_json(Unregistered())


def test_choices_are_checked() -> None:
    @dataclass(frozen=True)
    class Options:
        colour: Literal["red", "green"] = "red"
        size: int = 1

    require_choices(Options())
    with pytest.raises(UnknownName, match="Did you mean 'green'"):
        require_choices(Options("gren"))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", sorted(registered(object)))
def test_specs_are_frozen_dataclasses(kind: str) -> None:
    cls: Any = registered(object)[kind]
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen  # pyright: ignore


@dataclass(frozen=True)
class Counted:
    count: int
    share: float | None = None
    of_each: dict[str, tuple[int, ...]] | None = None
    values: object = dataclasses.field(default=None, compare=False)


def test_a_record_is_read_as_far_as_it_goes() -> None:
    """What this version does not know is left out; what it knows is checked, integers as counts."""
    register("counted", record=True)(Counted)
    found = Counted(3, 0.5, {"a": (1, 2)}, values=[object()])
    kept = to_json(found)
    assert kept == {"kind": "counted", "version": 1, "count": 3, "share": 0.5, "of_each": {"a": [1, 2]}}
    assert from_json({**kept, "more": {"of": "later"}}, Counted) == found
    for damage in (
        {"count": -1},
        {"count": 2**60},
        {"of_each": {"a": [-1]}},
        {"of_each": [1]},
        {"share": float("nan")},
    ):
        with pytest.raises(CheckpointError):
            from_json({**kept, **damage}, Counted)
    with pytest.raises(CheckpointError, match="lacks"):
        from_json({"kind": "counted", "version": 1, "share": 0.5}, Counted)


def test_a_record_within_a_spec_tells_no_kind_and_options_are_read_whole() -> None:
    register("counted", record=True)(Counted)

    @register("holder")
    @dataclass(frozen=True)
    class Holder:
        held: Counted
        wide: float = 1.0

    kept = to_json(Holder(Counted(1)))
    assert kept["held"] == {"count": 1, "share": None, "of_each": None}
    assert from_json(kept, Holder) == Holder(Counted(1))
    for damage in ({"more": 1}, {"wide": float("inf")}, {"wide": 10**400}):
        with pytest.raises(CheckpointError):
            from_json({**kept, **damage}, Holder)
