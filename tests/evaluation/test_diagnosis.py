"""Verdicts: over a table of numbers, and on small models made ill on purpose."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import re
import shlex
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tightbound as tb
from instances import objective_of, training_terms
from tightbound.cli import learning
from tightbound.cli import main as cli
from tightbound.cli.output import print_diagnosis
from tightbound.errors import ObjectiveError, UsageError
from tightbound.evaluation import Diagnosis, diagnose, evaluate
from tightbound.evaluation.collapse.diagnosis import _charged_per_dimension  # pyright: ignore[reportPrivateUsage]
from tightbound.evaluation.collapse.verdict import Symptoms, judge
from tightbound.evaluation.collapse.ways import Run, Way, in_words
from tightbound.evaluation.latents import codes as of_codes
from tightbound.evaluation.latents.positions import active_units, information_of
from tightbound.evaluation.latents.sameness import sameness
from tightbound.evaluation.passes import terms_of_the_first
from tightbound.objectives import Capacity, Elbo, Iwae, Mmd, Score, StickingTheLanding, TotalCorrelation
from tightbound.options.choices import changed, choices, flat, offered
from tightbound.options.priors import FlowPrior, MixturePrior, PixelCNNPrior
from tightbound.recipes import (
    CVAE,
    DVAE,
    VAE,
    VQVAE,
    VQVAE2,
    Autoencoder,
    Completion,
    GumbelVAE,
    LinearVAE,
    Stage,
    TwoStage,
)
from tightbound.recipes.base import Recipe
from tightbound.reporting import headline, tables
from tightbound.reporting.command import reproduction_command
from tightbound.reporting.diagnosis import section
from tightbound.reporting.material import gather
from tightbound.reporting.visuals import activity
from tightbound.runs import RunConfig
from tightbound.spec import to_json
from tightbound.training import TrainingOptions

FAR = (4.5, 9.0)
FITTED = TwoStage(Stage(VQVAE()), PixelCNNPrior())
WELL: dict[str, Any] = {
    "kl": 14.0,
    "mutual_information": 6.0,
    "decoder_use": 100.0,
    "active": 10,
    "dimensions": 16,
    "mismatch": (0.1, 0.3),
    "gap": 4.0,
    "amortisation": 2.5,
    "best_kl": 14.3,
}
DEAD = {"kl": 0.01, "mutual_information": 0.01, "decoder_use": 0.0, "active": 0, "mismatch": (0.0, 0.0), "best_kl": 0.1}
CHOSEN = {"codes": "chosen", "gap": None, "amortisation": None, "best_kl": None}
DRAWN = {"codes": "drawn", "amortisation": None, "best_kl": None}
UNMEASURED = {"best_kl": None, "amortisation": None}


@pytest.mark.parametrize(
    ("changes", "recipe", "verdict", "option"),
    [
        ({}, VAE(), "healthy", "no change needed"),
        ({}, VAE(), "healthy", "--hidden 512 512"),
        ({}, VAE(network="convolutional"), "healthy", "--channels 64 128 256"),
        ({"amortisation": 0.5}, VAE(), "healthy", "--posterior cholesky"),
        ({"amortisation": 0.5}, VAE(posterior="cholesky"), "healthy", "--posterior iaf"),
        ({"gap": 0.001, "amortisation": 0.001}, LinearVAE(), "healthy", "no change needed"),
        ({}, LinearVAE(posterior="gaussian"), "healthy", "--posterior exact"),
        ({"gap": None, "amortisation": None, "best_kl": None, "mismatch": None}, VAE(), "healthy", "no change needed"),
        (DEAD, VAE(), "collapsed", "--beta-warmup"),
        (DEAD, VAE(), "collapsed", "--free-bits 0.1"),
        (DEAD, VAE(objective=Elbo(free_bits=0.1)), "collapsed", "--free-bits 0.25"),
        (DEAD, VAE(likelihood="autoregressive"), "collapsed", "--likelihood auto"),
        (DEAD, VAE(likelihood="gaussian"), "collapsed", "--scale shared"),
        (DEAD, VAE(objective=StickingTheLanding()), "collapsed", "--objective elbo"),
        (DEAD, VAE(objective=Capacity(capacity=0.5, beta=20.0)), "collapsed", "--beta 1 and leave --capacity out"),
        (DEAD, LinearVAE(), "collapsed", "--beta-warmup"),
        (DEAD | {"kl": 14.0}, VAE(), "collapsed", "--prior diagonal"),
        ({"decoder_use": 0.01}, VAE(likelihood="autoregressive"), "collapsed", "--likelihood auto"),
        ({"decoder_use": 0.01}, VAE(), "collapsed", "--beta-warmup"),
        (DEAD, VAE(objective=Elbo(beta=50.0)), "collapsed", "--beta 1"),
        ({"best_kl": 20.0}, VAE(objective=Elbo(beta=4.0)), "over-regularised", "--beta 1"),
        (UNMEASURED, VAE(objective=Elbo(beta=4.0)), "over-regularised", "--beta 1"),
        ({}, VAE(objective=Elbo(beta=4.0)), "healthy", ""),
        ({"best_kl": 20.0, "best_kl_error": 5.0}, VAE(), "healthy", ""),
        ({"best_kl": 20.0}, VAE(), "over-regularised", "--hidden"),
        ({"best_kl": 20.0}, VAE(network="convolutional"), "over-regularised", "--channels"),
        ({"best_kl": 20.0}, VAE(objective=Capacity(capacity=14.0)), "over-regularised", "leave --capacity out"),
        ({"best_kl": 20.0}, LinearVAE(posterior="gaussian"), "over-regularised", "--posterior exact"),
        (UNMEASURED, VAE(objective=Elbo(beta=0.1)), "under-regularised", "--beta 1"),
        (
            UNMEASURED | {"per_dimension": False},
            VAE(objective=Elbo(free_bits=14.0)),
            "under-regularised",
            "--free-bits 0",
        ),
        (UNMEASURED | {"per_dimension": False}, VAE(objective=Elbo(free_bits=2.0)), "healthy", ""),
        (UNMEASURED, VAE(objective=Capacity(capacity=14.0, beta=20.0)), "healthy", ""),
        ({}, VAE(objective=Elbo(free_bits=0.5)), "healthy", ""),
        ({"best_kl": 9.0}, VAE(objective=Elbo(beta=0.1)), "under-regularised", "--beta 1"),
        (
            {"best_kl": 9.0},
            VAE(objective=Elbo(free_bits=0.5)),
            "healthy",
            "no change needed",
        ),  # no more than is proposed
        ({"best_kl": 9.0}, VAE(objective=Elbo(free_bits=0.6)), "under-regularised", "--free-bits 0"),
        ({"best_kl": 9.0}, VAE(objective=Elbo(free_bits=0.5, beta=0.5)), "under-regularised", "--beta 1 --free-bits 0"),
        ({"mismatch": (0.5, 9.0)}, VAE(), "healthy", ""),  # the bounds do not agree
        ({"sameness": "all examples are equal"}, VAE(), "constant data", "use data that varies"),
        ({"carrying": 15, "active": 3}, VAE(), "healthy", ""),
        ({"carrying": 10, "active": 15}, VAE(), "healthy", "12 dimensions would suffice: --latent-dim 12"),
        ({"carrying": 3, "active": 15}, VAE(), "partial collapse", "--latent-dim 4"),
        (
            {"best_kl": 9.0},
            VAE(objective=Capacity(capacity=40.0, beta=20.0)),
            "under-regularised",
            "--beta 1 and leave --capacity out",
        ),
        ({"best_kl": 9.0}, VAE(objective=Mmd()), "under-regularised", "--objective elbo"),
        ({"best_kl": 9.0}, VAE(objective=Mmd(beta=0.0)), "under-regularised", "--beta 1 --objective elbo"),
        ({"best_kl": 9.0}, VAE(objective=Iwae(samples=5)), "under-regularised", "--objective elbo"),
        ({"best_kl": 9.0}, VAE(), "under-regularised", "--epochs"),
        ({"mismatch": FAR}, VAE(), "under-regularised", "--prior vamp"),
        ({"mismatch": FAR}, VAE(prior="vamp"), "under-regularised", "--prior coupling"),
        ({"mismatch": FAR}, VAE(prior="mixture"), "under-regularised", "--prior coupling"),
        ({"mismatch": FAR}, VAE(prior="coupling"), "under-regularised", "--prior spline"),
        ({"mismatch": FAR}, VAE(prior="spline"), "under-regularised", "--transforms 4"),
        ({"mismatch": FAR}, VAE(prior="spline", transforms=8), "under-regularised", "train longer"),
        (
            {"mismatch": FAR},
            VAE(objective=Mmd(beta=0.0)),
            "under-regularised",
            "use the full KL weight: --beta 1",
        ),
        (
            {"mismatch": FAR, "dimensions": 10},
            LinearVAE(),
            "under-regularised",
            "a recipe with a learned prior",
        ),
        ({"active": 3}, VAE(), "partial collapse", "--latent-dim 4"),
        ({"active": 3}, VAE(), "partial collapse", "--free-bits 0.1"),
        ({"active": 3, "dimensions": 10}, LinearVAE(), "partial collapse", "--latent-dim 4"),
        ({**CHOSEN, "mismatch": FAR}, VQVAE(), "under-regularised", "tightbound fit-prior RUN"),
        ({**CHOSEN, "mismatch": None}, VQVAE(), "healthy", "tightbound fit-prior RUN"),
        ({**CHOSEN, "mismatch": FAR}, FITTED, "under-regularised", "train longer"),
        (
            {**CHOSEN, "decoder_use": 0.0},
            FITTED,
            "collapsed",
            "train the first stage again: compare",
        ),
        ({"mismatch": FAR}, TwoStage(Stage(VAE()), FlowPrior()), "under-regularised", "--transforms 8"),
        ({"mismatch": FAR}, TwoStage(Stage(VAE()), MixturePrior()), "under-regularised", "--prior flow"),
        (
            {"best_kl": 20.0},
            TwoStage(Stage(VAE()), FlowPrior()),
            "healthy",
            "no change needed",
        ),  # the posterior was made for another prior
        ({**CHOSEN, "mutual_information": 0.0}, VQVAE(revive=0), "collapsed", "--revive 0.03"),
        ({**CHOSEN, "decoder_use": 0.0}, VQVAE(), "collapsed", "--project 8"),
        ({**CHOSEN, "decoder_use": 0.0}, VQVAE(quantizer="fsq"), "collapsed", "--scale shared"),
        ({**DRAWN, "mismatch": FAR}, GumbelVAE(), "under-regularised", "--prior learned"),
        (
            {**DRAWN, "mismatch": FAR},
            GumbelVAE(prior="learned"),
            "under-regularised",
            "tightbound fit-prior RUN",
        ),
        ({**DRAWN, "active": 3, "dimensions": 20}, GumbelVAE(), "partial collapse", "--positions 4"),
        ({**DRAWN, "kl": 0.0, "decoder_use": 0.0}, DVAE(), "collapsed", "--beta-warmup"),
        ({**DRAWN, "decoder_use": 0.0}, DVAE(beta=6.6), "collapsed", "--beta 1"),
    ],
)
def test_verdicts(changes: dict[str, Any], recipe: Recipe, verdict: str, option: str) -> None:
    found = judge(Symptoms(**{**WELL, **changes, "recipe": recipe}))
    assert found[0] == verdict
    assert option in found[2]
    assert not (verdict == "healthy" and isinstance(recipe, TwoStage) and "--" in found[2])  # its posterior is frozen
    assert found[1]


def vaes(**options: list[Any]) -> list[Recipe]:
    return [changed(VAE(latent_dim=4, components=3), {n: value}) for n, values in options.items() for value in values]


SMALL: dict[str, Any] = {"latent_dim": 4, "components": 3}
RECIPES: list[Recipe] = [
    *vaes(prior=["normal", "diagonal", "mixture", "vamp", "coupling", "spline"]),
    *vaes(posterior=["cholesky", "iaf", "spline"], divergence=["monte-carlo"], network=["convolutional"]),
    *vaes(beta=[0.1, 4.0], free_bits=[0.1, 0.5, 3.0], hidden=[()]),
    *vaes(objective=["iwae", "tc", "mmd"], likelihood=["autoregressive", "gaussian"], scale=["fixed"]),
    VAE(**SMALL, objective=Iwae(samples=5, gradient="dreg")),
    VAE(**SMALL, objective=Iwae(samples=5)),
    VAE(**SMALL, objective=Capacity(capacity=0.5)),
    VAE(**SMALL, objective=Capacity(capacity=40.0)),
    VAE(**SMALL, objective=StickingTheLanding()),
    VAE(**SMALL, objective=Score(samples=4)),
    VAE(**SMALL, objective=TotalCorrelation(beta=0.5)),
    VAE(**SMALL, objective=TotalCorrelation(beta=50.0)),
    VAE(**SMALL, objective=Mmd(beta=0.0)),
    VAE(**SMALL, objective=Mmd(beta=5.0), prior="vamp"),
    VAE(**SMALL, objective=Capacity(capacity=40.0, beta=20.0)),
    VAE(**SMALL, objective=Capacity(capacity=40.0, beta=0.1), prior="coupling"),
    VAE(**SMALL, objective=Elbo(free_bits=0.2, beta=0.1)),
    VAE(**SMALL, objective=Elbo(free_bits=0.2, free_bits_group=0)),
    VAE(**SMALL, objective=Elbo(free_bits=0.2, free_bits_group=3)),
    VAE(**SMALL, objective=Elbo(free_bits=2.0), prior="vamp"),
    VAE(**SMALL, objective=Elbo(free_bits=2.0), posterior="iaf"),
    LinearVAE(latent_dim=4),
    LinearVAE(latent_dim=4, posterior="gaussian", scale="per-dimension"),
    GumbelVAE(positions=4, classes=3),
    GumbelVAE(positions=4, latents="binary", prior="learned", beta=4.0),
    DVAE(codes=8, channels=(8,), beta=6.6),
    DVAE(codes=8, channels=(8,), beta=0.5, likelihood="gaussian"),
    *[VQVAE(codes=8, code_dim=16, channels=(8,), quantizer=kind) for kind in ("ema", "gradient", "fsq")],
    VQVAE(codes=8, code_dim=4, channels=(8,), revive=0.0),
    VQVAE2(codes=8, code_dim=16, channels=(8,), project=4),
]
ILL: list[dict[str, Any]] = [
    {},
    {"amortisation": 0.5},
    {"gap": 0.01, "amortisation": 0.0},
    {"gap": None, "amortisation": None, "best_kl": None},
    UNMEASURED,
    DEAD,
    DEAD | {"kl": 14.0},
    {"decoder_use": 0.01},
    {"best_kl": 20.0},
    {"best_kl": 9.0},
    {"best_kl": 13.9, "kl": 30.0},
    {"mismatch": FAR},
    {"mismatch": (0.0, 9.0), "gap": None, "amortisation": None, "best_kl": None},
    {"sameness": "all examples are equal"},
    {"carrying": 1},
    {"active": 1},
    {"active": 0},
]
TRAININGS = [
    None,
    TrainingOptions(),
    TrainingOptions(epochs=10, beta_warmup=0.5),
    TrainingOptions(steps=100, beta_warmup=1.0),
    TrainingOptions(epochs=10, beta_warmup_epochs=5),
    TrainingOptions(epochs=10, beta_warmup_epochs=10),
    TrainingOptions(beta_warmup_epochs=10),
]


def read(text: str, hint: Any) -> Any:
    """What the command line would make of the words behind an option."""
    if typing.get_origin(hint) is tuple:
        return tuple(int(word) for word in text.split())
    assert " " not in text
    for kind in (int, float) if hint is not str else ():
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def hints_of(spec: Any) -> dict[str, Any]:
    """The types of a spec's options by name, those of whatever its choices offer among them."""
    hints, held = typing.get_type_hints(type(spec)), choices(spec)
    for name, base in held.items():
        for cls in offered(base, name).values():
            hints |= typing.get_type_hints(cls)
    return hints | dict.fromkeys(held, str)


def options_of(remedy: str, spec: Any) -> dict[str, Any]:
    """The options of a spec to which a way out gives a value; one that shall be left out is of another choice."""
    hints = hints_of(spec)
    given: dict[str, Any] = {}
    for left_out, flag, value in re.findall(r"(leave )?--([a-z-]+)((?: (?!and |out)[\w.]+)*)", remedy):
        name = flag.replace("-", "_")
        if name in hints and value and not left_out:
            given[name] = read(value.strip(), hints[name])
    return given


def known(s: dict[str, Any], recipe: Recipe, training: Any = None, data: tb.data.DataSpec | None = None) -> Symptoms:
    """Numbers that a model of that recipe may have."""
    first = recipe.first.recipe if isinstance(recipe, TwoStage) else recipe
    plain = getattr(recipe, "prior", "normal") in ("normal", "diagonal")
    factorises = plain and getattr(recipe, "posterior", "exact") == "gaussian"
    free = flat(recipe).get("divergence", "auto") != "monte-carlo"
    codes = "chosen" if isinstance(first, VQVAE | VQVAE2) else "drawn" if hasattr(first, "temperature") else None
    numbers = {**WELL, "active": 4, **s, "dimensions": 4, "per_dimension": factorises and free, "codes": codes}
    if codes:  # such a posterior is not optimised
        numbers |= {"best_kl": None, "amortisation": None, "gap": s.get("gap") if codes == "drawn" else None}
    return Symptoms(**numbers, recipe=recipe, training=training, data=data)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_every_remedy_can_be_followed(recipe: Recipe) -> None:
    """Every option that is named is the run's recipe's or training's, accepted, and not what the run had."""
    followed: set[Recipe] = set()
    for s, training in itertools.product(ILL, TRAININGS):
        symptoms = known(s, recipe, training)
        verdict, cause, remedy = judge(symptoms)
        assert cause
        assert remedy
        now = training or TrainingOptions()
        for way in remedy.split("; or "):
            if "tightbound fit-prior" in way:
                assert symptoms.codes
                continue
            flags = {flag.replace("-", "_") for flag in re.findall(r"--([a-z-]+)", way)}
            assert flags <= {*hints_of(recipe), *hints_of(now)}, (verdict, way)
            for spec, theirs in ((recipe, options_of(way, recipe)), (now, options_of(way, now))):
                assert all(flat(spec).get(name) != value for name, value in theirs.items()), (verdict, way)
            assert dataclasses.replace(now, **options_of(way, now)) is not None
            if options := options_of(way, recipe):
                followed.add(changed(recipe, options))
            assert (
                flags or verdict in ("healthy", "constant data") or "training split" in way or "a recipe with" in way
            ), (verdict, way)
    assert followed
    for other in followed:
        trains(other)


def trains(recipe: Recipe) -> None:
    data = tb.data.DataSpec("digits", (1, 8, 8), levels=17)
    if getattr(recipe, "likelihood", "auto") == "gaussian":
        data = tb.data.DataSpec("digits", (1, 8, 8), levels=None)
    x = torch.rand(3, 1, 8, 8) if data.levels is None else torch.randint(17, (3, 1, 8, 8)) / 16
    assert objective_of(recipe, training_terms(recipe.build(data), x), 1.0).shape == (3,)


TEN_EPOCHS = TrainingOptions(epochs=10)
COMMANDS: list[Recipe] = [
    VAE(latent_dim=4, likelihood="autoregressive", objective=Elbo(free_bits=0.1)),
    VAE(latent_dim=4, objective=Capacity(capacity=0.5, beta=20.0), prior="mixture", components=3),
    VAE(latent_dim=4, objective=StickingTheLanding(), posterior="cholesky"),
    CVAE(latent_dim=4),
    Completion(latent_dim=4),
    LinearVAE(latent_dim=4, posterior="gaussian"),
    GumbelVAE(positions=4, classes=3, beta=4.0),
    DVAE(codes=8, channels=(8,), likelihood="gaussian"),
    VQVAE(codes=8, code_dim=16, channels=(8,), revive=0.0),
    VQVAE2(codes=8, code_dim=16, channels=(8,)),
    TwoStage(
        Stage(VQVAE(codes=8, channels=(8,)), training=TrainingOptions(epochs=10)), PixelCNNPrior(channels=8, layers=1)
    ),
    TwoStage(Stage(VAE(latent_dim=4), training=TrainingOptions(epochs=10)), MixturePrior(components=3)),
]


def command_of(recipe: Recipe, training: TrainingOptions, way: str, again: bool, spec: tb.data.DataSpec) -> list[str]:
    """The command line of a run, changed as a way out says."""
    if "tightbound fit-prior" in way:
        return way[way.index("tightbound fit-prior") :].split()[1:]
    data = tb.data.DataOptions("digits")
    if isinstance(recipe, TwoStage):
        recipe = TwoStage(dataclasses.replace(recipe.first, data=data, training=training), recipe.prior)
    config = RunConfig(spec, training, recipe, data)
    lines = (reproduction_command(config, "RUN") or "").splitlines()
    words = shlex.split(lines[0 if again else -1])[1:]
    changes = {flag: value.split() for flag, value in re.findall(r"(--[a-z-]+)((?: (?!and |out)[\w.]+)*)", way)}
    for flag, values in changes.items():
        if flag in words:
            start = words.index(flag)
            end = next((i for i in range(start + 1, len(words)) if words[i].startswith("--")), len(words))
            del words[start:end]
        words += [flag, *values] if f"leave {flag}" not in way else []
    return words


@pytest.mark.parametrize("recipe", COMMANDS, ids=str)
def test_every_remedy_is_a_command_line_that_is_accepted(
    digits: tb.data.Data, monkeypatch: pytest.MonkeyPatch, recipe: Recipe
) -> None:
    """Of every recipe and symptom: parsed by the command itself, and built for the data, but not trained."""
    parsed: list[Any] = []
    monkeypatch.setattr(cli, "train", parsed.append)
    monkeypatch.setattr("tightbound.training.second_stage.fit_prior", lambda run, **given: parsed.append(given))
    monkeypatch.setattr(learning, "_conclude", lambda *_: None)
    training = TrainingOptions(epochs=10)
    remedies = {judge(known(s, recipe, training, digits.spec))[2] for s in ILL}
    again = "train the first stage again"
    ways = {(way, again in text) for text in remedies for way in re.split(r"; (?:or )?", text) if " --" in way}
    assert ways
    for way, first_stage in ways:
        line = command_of(recipe, training, way, first_stage, digits.spec)
        assert cli.main(line) == 0, (way, line)
        found = parsed.pop()
        if line[0] == "train":
            now = recipe.first.recipe if isinstance(recipe, TwoStage) else recipe
            assert (found.recipe, found.training) != (now, training), way
            found.recipe.build(digits.spec)
            continue
        if isinstance(recipe, TwoStage):
            assert (found["prior"], found["options"]) != (recipe.prior, training), way
        first = recipe.first.recipe if isinstance(recipe, TwoStage) else recipe
        TwoStage(Stage(first), found["prior"]).build(digits.spec)


@pytest.mark.parametrize(("best", "said"), [(9.0, True), (14.3, False)])
def test_free_bits_are_only_spoken_of_where_they_show(best: float, said: bool) -> None:
    verdict, cause, _ = judge(Symptoms(**{**WELL, "best_kl": best}, recipe=VAE(objective=Elbo(free_bits=0.5))))
    assert (verdict, "were free in training" in cause) == ("healthy", said)


def test_what_the_data_refuses_is_not_offered() -> None:
    """Free entries in place of an autoregressive decoder, and a Gaussian's scale, of whatever data."""
    vector = tb.data.DataSpec("vector", (5,), levels=3)
    wide = VAE(network="mlp", likelihood="categorical")
    refused = Way("take a decoder of pixels", {"likelihood": "autoregressive"})
    assert in_words(Run(recipe=wide, data=vector), refused) == ""
    assert in_words(Run(recipe=wide, data=tb.data.DataSpec("digits", (1, 8, 8), levels=17)), refused)
    assert in_words(Run(recipe=VAE(objective=StickingTheLanding())), Way("weigh the KL", {"beta": 0.5})) == ""
    assert in_words(Run(recipe=VAE(objective=Elbo(beta=0.5))), Way("weigh the KL", {"beta": 0.5})) == ""
    assert in_words(Run(recipe=VQVAE()), Way("weigh the KL", {"beta": 0.5})) == ""


@pytest.mark.parametrize("recipe", [r for r in RECIPES if not isinstance(r, VQVAE | VQVAE2)][:14], ids=str)
def test_following_remedies_ends(recipe: Recipe) -> None:
    """A free nat, a richer prior or fewer dimensions that were advised are never what the next diagnosis blames."""
    for s in (DEAD, {"mismatch": FAR}, {"active": 1}):
        now, seen = recipe, set[Recipe]()
        while now not in seen:
            seen.add(now)
            symptoms = known(s, now, TrainingOptions(epochs=10))
            way = judge(symptoms)[2].split("; or ")[0]
            now = changed(now, options_of(way, now))
            freed = {**s, "best_kl": 9.0, "active": 4, "mutual_information": 6.0, "decoder_use": 9.0, "kl": 14.0}
            cured = judge(known({**freed, "mismatch": (0.0, 0.5)}, now, TrainingOptions(epochs=10)))
            assert (
                not (cured[0] == "under-regularised" and "free" in cured[1]) or flat(recipe).get("free_bits", 0) > 0.5
            )
        assert len(seen) < 8


@pytest.mark.parametrize("s", ILL, ids=str)
def test_a_model_put_together_by_hand_is_told_in_words(s: dict[str, Any]) -> None:
    for training in TRAININGS:
        _, cause, remedy = judge(Symptoms(**{**WELL, **s}, training=training))
        assert "--" not in cause + remedy
        assert len(remedy) > 10


@pytest.mark.parametrize(
    ("training", "flags"),
    [
        (None, "a larger --beta-warmup"),
        (TrainingOptions(), "--beta-warmup 0.5"),
        (TrainingOptions(beta_warmup=0.5), "--beta-warmup 0.75"),
        (TrainingOptions(beta_warmup=0.75), None),
        (TrainingOptions(epochs=20, beta_warmup_epochs=3), "--beta-warmup-epochs 10"),
        (TrainingOptions(epochs=20, beta_warmup_epochs=20), None),
        (TrainingOptions(steps=20, beta_warmup_epochs=3), None),
    ],
    ids=str,
)
def test_only_a_longer_warm_up_is_proposed(training: TrainingOptions | None, flags: str | None) -> None:
    remedy = judge(known(DEAD, VAE(), training))[2]
    assert "--free-bits" in remedy
    assert ("warm-up" in remedy) == (flags is not None)
    assert flags is None or flags in remedy


@pytest.mark.parametrize("objective", [Iwae(), TotalCorrelation(), Score()])
def test_no_warm_up_is_proposed_where_the_objective_has_none(objective: Any) -> None:
    assert "warmup" not in judge(known(DEAD, VAE(objective=objective)))[2]


@pytest.mark.parametrize(
    ("recipe", "free"),
    [
        (VAE(latent_dim=64), "--free-bits 0.1"),
        (VAE(latent_dim=64, objective=Elbo(free_bits_group=4)), "of each 4 dimensions as free bits: --free-bits 0.4"),
        (VAE(latent_dim=64, objective=Elbo(free_bits_group=0)), "in total as free bits: --free-bits 6"),
        (VAE(latent_dim=64, prior="vamp"), "in total as free bits: --free-bits 6"),
        (VAE(latent_dim=64, posterior="iaf"), "in total as free bits: --free-bits 6"),
        (VAE(latent_dim=64, objective=Elbo(divergence="monte-carlo")), "in total as free bits: --free-bits 6"),
        (VAE(latent_dim=4, posterior="cholesky"), "in total as free bits: --free-bits 2"),
        (VAE(latent_dim=64, prior="vamp", objective=Elbo(free_bits=6.0)), "in total as free bits: --free-bits 16"),
    ],
    ids=str,
)
def test_free_bits_are_of_what_the_kl_is_told_apart_by(digits: tb.data.Data, recipe: VAE, free: str) -> None:
    model = recipe.build(digits.spec)
    per_dimension = _charged_per_dimension(model, terms_of_the_first(model, digits.test))
    s = Symptoms(**{**WELL, **DEAD, "dimensions": recipe.latent_dim, "per_dimension": per_dimension, "recipe": recipe})
    assert free in judge(s)[2]


@pytest.fixture(scope="module")
def digits() -> tb.data.Data:
    return tb.load_data("digits")


def trained(data: tb.data.Data, path: Path, steps: int = 700, **options: Any) -> Diagnosis:
    torch.manual_seed(0)
    model = VAE(latent_dim=8, hidden=(64,), **options).build(data.spec)
    tb.train(model, data, out=path, steps=steps, lr=3e-3, pictures=False)
    return diagnose(model, data.test, gap_examples=20, k=100)


@pytest.mark.parametrize(
    ("objective", "verdict", "option"),
    [
        (Elbo(), {"healthy"}, ""),
        (Elbo(beta=100.0), {"collapsed"}, "--beta 1"),
        (Elbo(beta=3.0), {"over-regularised"}, "--beta"),
        (Elbo(beta=0.02), {"under-regularised"}, "--beta 1"),
        (Capacity(capacity=40.0, beta=20.0), {"under-regularised"}, "--beta 1 and leave --capacity out"),
    ],
    ids=["well", "far too strong", "too strong", "too weak", "held to too much"],
)
def test_models_made_ill(digits: tb.data.Data, tmp_path: Path, objective: Any, verdict: set[str], option: str) -> None:
    found = trained(digits, tmp_path / "run", objective=objective)
    assert found.verdict in verdict
    assert option in found.remedy
    assert found.kl_per_dimension is not None
    assert len(found.kl_per_dimension["z"]) == found.dimensions == 8
    assert (found.n, found.fit_n) == (360, 20)


def test_the_weight_of_the_kl_shows_without_being_told(digits: tb.data.Data, tmp_path: Path) -> None:
    """A stranger's model: its recipe is not known, but the best posteriors tell."""
    for beta, verdict in ((3.0, "over-regularised"), (0.02, "under-regularised")):
        torch.manual_seed(0)
        model = VAE(latent_dim=8, hidden=(64,), objective=Elbo(beta=beta)).build(digits.spec)
        tb.train(model, digits, out=tmp_path / str(beta), steps=700, lr=3e-3, pictures=False)
        model.recipe = None
        assert diagnose(model, digits.test, gap_examples=20, k=100).verdict == verdict


def test_a_decoder_that_ignores_its_latent_is_found_out(digits: tb.data.Data) -> None:
    model = VAE(latent_dim=4, hidden=(16,)).build(digits.spec)
    with torch.no_grad():
        model.posterior.network.layers[-1].weight.mul_(30)  # pyright: ignore
        model.likelihood.network.layers[0].weight.zero_()  # pyright: ignore
    found = diagnose(model, digits.test, gap_examples=5, k=20)
    assert found.verdict == "collapsed"
    assert found.mutual_information.value > 1
    assert abs(found.decoder_use.value) < 1e-4


def test_the_order_of_the_data_does_not_matter(digits: tb.data.Data, tmp_path: Path) -> None:
    """Neighbours in a folder are of one class: exchanging their latents would cost little."""
    model = VAE(latent_dim=8, hidden=(64,)).build(digits.spec)
    tb.train(model, digits, out=tmp_path / "run", steps=500, lr=3e-3, pictures=False)
    labels = digits.test.labels
    assert labels is not None
    given, by_class = (
        diagnose(model, part, gap_examples=2, k=2).decoder_use
        for part in (digits.test, digits.test.subset(labels.argsort()))
    )
    assert abs(given.value - by_class.value) < 4 * (given.standard_error or 0)


def test_one_example_says_nothing(digits: tb.data.Data) -> None:
    model = VAE(latent_dim=4, hidden=(16,)).build(digits.spec)
    with pytest.raises(UsageError, match="several examples"):
        diagnose(model, digits.test.subset(1))
    with pytest.raises(UsageError, match="several examples"):
        diagnose(model, digits.test, limit=0)


def test_json_has_the_promised_keys(digits: tb.data.Data) -> None:
    model = VAE(latent_dim=4, hidden=(16,)).build(digits.spec)
    found = json.loads(json.dumps(to_json(diagnose(model, digits.test, gap_examples=3, k=5)), allow_nan=False))
    promised = {"verdict", "cause", "remedy", "mutual_information", "aggregate_kl", "gap", "active_units"}
    assert promised | {"kl_per_dimension", "decoder_use", "fit"} <= set(found)
    assert found["gap"]["value"] > 0


def test_an_autoencoder_is_refused(digits: tb.data.Data) -> None:
    with pytest.raises(ObjectiveError, match="Only a model with an ELBO"):
        diagnose(Autoencoder(latent_dim=2, hidden=(4,)).build(digits.spec), digits.test)


def test_a_model_whose_prior_is_a_model_is_diagnosed_by_layer(digits: tb.data.Data) -> None:
    from tightbound.data import DataSpec
    from tightbound.models import LatentVariableModel

    model = VAE(latent_dim=4, hidden=(16,)).build(digits.spec)
    prior = VAE(latent_dim=2, hidden=(8,)).build(DataSpec("z", (4,), levels=None))
    stack = LatentVariableModel(prior, model.likelihood, model.posterior)
    found = diagnose(stack, digits.test.subset(50), gap_examples=5, k=5)
    assert found.layers is not None
    assert [(layer.name, layer.dimensions) for layer in found.layers] == [("z1", 4), ("z2", 2)]


@pytest.mark.parametrize(
    "options", [{"prior": "vamp"}, {"prior": "mixture"}, {"prior": "coupling"}, {"posterior": "cholesky"}], ids=str
)
def test_a_kl_that_is_one_number_is_not_called_that_of_a_dimension(
    digits: tb.data.Data, options: dict[str, Any]
) -> None:
    model = VAE(latent_dim=4, hidden=(16,), components=5, **options).build(digits.spec)
    found = diagnose(model, digits.test.subset(50), gap_examples=3, k=5)
    assert found.kl_per_dimension is None
    assert any("does not factorise by dimension" in note for note in found.notes)
    assert found.fit_n == 3


def test_what_training_was_like_reaches_the_remedy(digits: tb.data.Data) -> None:
    model = VAE(latent_dim=4, hidden=(16,)).build(digits.spec)
    model.likelihood.network.layers[0].weight.data.zero_()  # pyright: ignore
    told = [
        diagnose(model, digits.test.subset(50), gap_examples=3, k=5, training=TrainingOptions(beta_warmup=share)).remedy
        for share in (0.2, 0.5, 1.0)
    ]
    assert "--beta-warmup 0.5" in told[0]
    assert "--beta-warmup 0.75" in told[1]
    assert "--beta-warmup" not in told[2]


def test_the_report_shows_the_codes_where_the_kl_is_one_number(digits: tb.data.Data, tmp_path: Path) -> None:
    model = VAE(latent_dim=4, hidden=(16,), components=5, prior="vamp").build(digits.spec)
    few = dataclasses.replace(digits, test=digits.test.subset(150))
    tb.train(model, few, out=tmp_path / "run", steps=2, beta_warmup=1.0, pictures=False)
    html = section(gather(tmp_path / "run", data=few, k=3, quick=600))
    assert "the third goal; of 100 examples" in html
    assert "largest variance of the posterior" in html
    assert "--beta-warmup" not in html


@pytest.mark.parametrize(
    ("recipe", "positions", "certain"),
    [
        (VQVAE2(codes=8, code_dim=3, channels=(8,), blocks=1), 4 + 16, True),
        (GumbelVAE(positions=6, classes=5, hidden=(16,)), 6, False),
        (GumbelVAE(positions=6, latents="binary", hidden=(16,)), 6, False),
    ],
    ids=["chosen", "drawn", "bits"],
)
def test_codes_are_told_apart_by_position(
    digits: tb.data.Data, tmp_path: Path, recipe: Any, positions: int, certain: bool
) -> None:
    model = recipe.build(digits.spec)
    few = dataclasses.replace(digits, test=digits.test.subset(60))
    tb.train(model, few, out=tmp_path / "run", steps=20, pictures=False)
    found = diagnose(model, few.test, gap_examples=10, k=5)
    wise = (found.kl_per_dimension or {})["z"]
    assert found.dimensions == positions == len(wise) == len(found.dimension_wise_kl or ())
    assert sum(wise) == pytest.approx(found.kl.value, rel=1e-4)
    assert not any("one number" in note for note in found.notes)
    assert (found.gap is None) == certain
    assert found.fit is not None
    if certain:
        assert (found.fit.value, found.fit_n) == (pytest.approx(-found.reconstruction.value + found.kl.value), 60)
    told, active = found.information_per_position, f"{found.active_units} of {positions} positions of codes are active"
    assert told is not None
    m = gather(tmp_path / "run", data=few, k=3, quick=600)
    assert m.evaluation is not None
    assert m.evaluation.active_units == found.active_units
    measured, count = active_units(model.space, m.codes)
    assert (measured, count) == (found.active_units, positions)
    own = information_of(model.space, m.codes)
    assert own is not None
    assert (own - torch.tensor(told)).abs().max() < (1e-6 if certain else 0.3)  # drawn codes against their mean
    assert "Information of each position of the codes" in activity(m)
    assert active in activity(m)
    assert active in headline.verdict(m, tables.comparison(m))
    assert f"{found.active_units} of {positions}" in tables.evaluation(m)


def test_a_constant_code_tells_nothing(digits: tb.data.Data) -> None:
    model = GumbelVAE(positions=3, classes=4, hidden=()).build(digits.spec)
    with torch.no_grad():
        for p in model.posterior.parameters():
            p.zero_()
        bias: Any = model.posterior.network.last_layer.bias  # pyright: ignore
        bias[4], bias[8:] = 5.0, torch.randn(4)
        weight: Any = model.posterior.network.last_layer.weight  # pyright: ignore
        weight[:4] = 3 * torch.randn(4, 64)
    assert diagnose(model, digits.test.subset(100), gap_examples=5, k=5).active_units == 1


@pytest.mark.parametrize(
    "recipe",
    [
        TwoStage(
            Stage(VQVAE(codes=8, channels=(8,), blocks=1)), PixelCNNPrior(condition="class", channels=8, layers=2)
        ),
        CVAE(latent_dim=2, hidden=(8,), prior="conditional"),
    ],
    ids=["codes", "vectors"],
)
def test_agreement_is_not_claimed_where_each_condition_has_its_own_prior(digits: tb.data.Data, recipe: Any) -> None:
    model = recipe.build(digits.spec)
    if isinstance(recipe, TwoStage):
        typing.cast("Any", model.posterior).initialise(digits.test.batch(torch.arange(100)).x)
    found = diagnose(model, digits.test.subset(100), gap_examples=3, k=5)
    assert (found.aggregate_kl, found.aggregate_kl_at_least) == (None, None)
    assert (found.information_per_position is None) == isinstance(recipe, CVAE)
    assert found.mutual_information.value <= found.mutual_information_at_most.value + 1e-9
    used = {"kl": 14.0, "mutual_information": 3.0, "decoder_use": 9.0, "active": 9, "dimensions": 16}
    for codes in (None, "chosen"):
        s = Symptoms(**used, codes=codes, recipe=recipe, unmeasured="each condition has its own prior")  # pyright: ignore
        what, why, _ = judge(s)
        assert what == "healthy"
        assert "matches the prior is unknown: each condition" in why


def test_bounds_are_called_so(digits: tb.data.Data, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = VQVAE(codes=64, channels=(8,), blocks=1).build(digits.spec)
    few = dataclasses.replace(digits, test=digits.test.subset(100))
    tb.train(model, few, out=tmp_path / "run", steps=1, pictures=False)
    found = diagnose(model, few.test, gap_examples=3, k=5)
    least, most = found.aggregate_kl_at_least, found.aggregate_kl
    assert least is not None
    assert most is not None
    assert 0 <= least.value < most.value
    sure = Symptoms(**{**WELL, "mismatch": (8.0, 11.5)})
    assert "8.0 to 11.5 nats from the prior" in judge(sure)[1]
    print_diagnosis(found)
    printed = capsys.readouterr().out
    html = section(gather(tmp_path / "run", data=few, k=3, quick=600))
    for text in (printed, html):
        assert text.count("at most") >= 2
        assert text.count("at least") >= 2
    assert f"{least.value:.2f}" in printed
    assert f"{most.value:.2f}" in printed


def alike(n: int, other: int = 0, step: int = 0) -> tb.data.Data:
    """Grey pictures, of which so many are others, and which vary by so much."""
    values = np.random.default_rng(0).integers(0, step + 1, (n, 8, 8)).astype(np.uint8) + 100
    values[:other] = 7
    return tb.data.Data.from_arrays(values, values, levels=256, name="alike")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (alike(120), "all examples are equal"),
        (alike(120, other=2), "118 of 120 examples are equal"),
        (alike(120, step=2), "all examples are nearly equal"),
    ],
    ids=["constant", "all but two", "noise of a level or two"],
)
def test_constant_data_is_told_as_such_and_no_option_is_blamed(data: tb.data.Data, said: str) -> None:
    model = VAE(latent_dim=2, hidden=(4,), objective=Elbo(beta=4.0)).build(data.spec)
    found = diagnose(model, data.test, gap_examples=2, k=2)
    assert found.verdict == "constant data"
    assert said in found.cause
    assert "--" not in found.remedy


@pytest.mark.parametrize("data", [alike(120, other=30), alike(120, step=20)], ids=["two kinds", "visible noise"])
def test_data_that_varies_is_not_called_constant(data: tb.data.Data) -> None:
    assert sameness(data.test) == ""


def test_unused_dimensions_are_named_beside_the_convention(digits: tb.data.Data) -> None:
    model: Any = VAE(latent_dim=8, hidden=(16,)).build(digits.spec)
    last = model.posterior.network.layers[-1]
    with torch.no_grad():  # means of size 1 in three dimensions, of variance 0.02 in two, and nothing in the others
        torch.nn.init.zeros_(last.weight)
        last.weight[:3].normal_()
        last.weight[3:5].normal_(std=0.3 / 16)
        last.bias.zero_()
    found = diagnose(model, digits.test, gap_examples=2, k=2)
    assert found.carrying is not None
    assert set(found.carrying) <= {0, 1, 2}
    assert found.kl_per_dimension is not None
    assert found.active_units >= len(found.carrying)
    note = next(note for note in found.notes if "Burda" in note)
    assert f"{len(found.carrying)} of 8 latent dimensions carry 99% of the KL; {found.active_units} pass" in note
    assert "hold" in note
    assert "7 are hardly used" in note
    assert "--latent-dim 4" in note


def test_the_verdict_rests_on_the_same_examples_whatever_the_limit(digits: tb.data.Data) -> None:
    model = VAE(latent_dim=4, hidden=(16,)).build(digits.spec)
    few, many = (diagnose(model, digits.test, limit=limit, gap_examples=5, k=5) for limit in (20, 300))
    assert (few.gap, few.fit) == (many.gap, many.fit)


@pytest.mark.parametrize(
    ("recipe", "said", "unsaid"),
    [
        (VQVAE(codes=64, channels=(8,), blocks=1), "--project 8", "--revive"),
        (VQVAE(codes=64, channels=(8,), blocks=1, revive=0.0), "--revive 0.03", "--beta"),
        (VQVAE(codes=64, channels=(8,), blocks=1, project=8), "--codes", "--project"),
        (VQVAE(channels=(8,), quantizer="fsq"), "train longer", "--codes"),
        (DVAE(codes=64, channels=(8,), blocks=1), "--codes", "--revive"),
    ],
    ids=str,
)
def test_advice_on_unused_codes_is_of_the_recipe_and_not_what_it_does(
    digits: tb.data.Data, recipe: Any, said: str, unsaid: str
) -> None:
    remedy = of_codes._remedy(recipe.build(digits.spec), digits.test)  # pyright: ignore[reportPrivateUsage]
    assert said in remedy
    assert unsaid not in remedy


def test_annealing_is_no_advice_where_it_is_refused(digits: tb.data.Data) -> None:
    gumbel, plain = GumbelVAE(positions=40, classes=4, hidden=(8,)), VAE(latent_dim=30, hidden=(8,))
    for recipe, annealable in ((gumbel, False), (plain, True)):
        model = recipe.build(digits.spec)
        with torch.no_grad():
            for p in model.posterior.parameters():
                p.mul_(8)
        notes = " ".join(evaluate(model, digits.test.subset(10), k=100).notes)
        assert "cannot be trusted" in notes
        assert ("--method annealed" in notes) == annealable


def test_a_warm_up_is_only_spoken_of_where_something_warms_up() -> None:
    recipes = (VAE(), GumbelVAE(), LinearVAE())
    assert [r.training_objective.warming for r in recipes] == ["the KL's weight"] * 3
    assert Capacity(capacity=5.0).warming == "the capacity"
    nothing = (VQVAE(), Autoencoder(), DVAE(beta=0), VAE(objective=StickingTheLanding()), VAE(objective=Iwae()))
    assert not any(r.training_objective.warming for r in nothing)
