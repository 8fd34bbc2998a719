"""A run folder: damaged files are told as such, and what it holds is never taken for something else."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_helpers import refused
from tightbound import checkpoint
from tightbound.data import Data, DataOptions, DataSpec, load_data
from tightbound.errors import CheckpointError, DataError, UsageError
from tightbound.evaluation import Evaluation, diagnose, evaluate
from tightbound.evaluation.kept import damaged, read_evaluation, write_diagnosis, write_evaluation
from tightbound.options.priors import MixturePrior
from tightbound.options.training import TrainingOptions
from tightbound.recipes import VAE, Stage, TwoStage
from tightbound.runs import RunConfig, RunFolder, load, load_run_data, number, options_of
from tightbound.training.state import require_same_run

RECIPE = VAE(latent_dim=2, hidden=(4,))
DIGITS = DataSpec("digits", shape=(1, 8, 8), levels=17)


def made(path: Path, data: Data) -> RunFolder:
    """A run that was never trained."""
    folder = RunFolder(path)
    folder.write_config(
        RunConfig(data.spec, TrainingOptions(), RECIPE, data.options, "0.1.0", fingerprint=data.fingerprint)
    )
    checkpoint.write(folder.weights, checkpoint.tensors_of(RECIPE.build(data.spec)))
    return folder


def weights_of(run: RunFolder) -> str:
    return checkpoint.read_with_digest(run.weights)[1]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "levels.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (40, 6), dtype=np.uint8))
    return path


@pytest.fixture
def run(tmp_path: Path, source: Path) -> RunFolder:
    return made(tmp_path / "run", load_data(source))


# -- config.json ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("recipe", "kind"), "vea"),
        (("recipe", "latent_dim"), 0),
        (("recipe", "latent_dim"), 10**30),
        (("recipe", "hidden"), [-1]),
        (("recipe", "likelihood"), "poison"),
        (("recipe",), {"kind": "data-options", "version": 1}),
        (("training", "batch_size"), 0),
        (("training", "precision"), "8-bit"),
        (("training", "lr"), 10**400),
        (("data", "color"), "purple"),
        (("data", "validation"), 2.0),
        (("data_spec", "shape"), [-1]),
        (("data_spec", "levels"), 0),
        (("fingerprint",), 3),
        (("kind",), "vae"),
    ],
)
def test_a_damaged_config_is_a_failure_that_names_the_file(
    run: RunFolder, where: tuple[str, ...], value: object
) -> None:
    content = json.loads(run.config_file.read_text())
    part = content
    for name in where[:-1]:
        part = part[name]
    part[where[-1]] = value
    run.config_file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError) as caught:
        load(run.path)
    assert str(run.config_file) in str(caught.value)
    assert caught.value.remedy is not None


def test_a_config_of_an_old_version_has_no_fingerprint(run: RunFolder) -> None:
    content = json.loads(run.config_file.read_text())
    del content["fingerprint"]
    run.config_file.write_text(json.dumps(content))
    assert run.config().fingerprint == ""
    assert len(load_run_data(run.path).test) == 4


# -- metrics.jsonl --------------------------------------------------------------------------------------------------


def test_only_readings_are_read(run: RunFolder) -> None:
    good = {"step": 1, "split": "train", "bound": -3.0}
    bad = [b"3", b"[]", b"null", b'{"step": "a"}', b'{"step": true, "split": "train"}', b'{"step": 2, "split": 7}']
    bad += [b"\xff\xfe", b"[" * 100_000, b"9" * 10_000, b'{"step": 1' + b"0" * 30 + b', "split": "train"}', b'{"st']
    run.metrics.write_bytes(b"\n".join([bad[0], json.dumps(good).encode(), *bad[1:]]))
    assert run.records() == [good]


@pytest.mark.parametrize("value", [None, "a", True, [], {}, float("nan"), float("inf"), 10**400])
def test_what_is_no_number_is_missing(value: Any) -> None:
    assert number({"x": value}, "x") is None
    assert number({"x": 2}, "x") == 2.0


# -- evaluation.json ------------------------------------------------------------------------------------------------


@pytest.fixture
def found(run: RunFolder) -> Evaluation:
    return evaluate(load(run.path), load_run_data(run.path).test, k=2)


def test_an_evaluation_is_of_the_weights_it_was_written_with(run: RunFolder, found: Evaluation) -> None:
    assert read_evaluation(run) is None
    write_evaluation(run, found, weights_of(run))
    assert read_evaluation(run) == found
    checkpoint.write(run.weights, checkpoint.tensors_of(RECIPE.build(run.config().data_spec)))
    assert read_evaluation(run) is None
    run.weights.unlink()
    assert read_evaluation(run) is None


def test_what_was_measured_of_other_weights_is_not_stored(run: RunFolder, found: Evaluation) -> None:
    """As where a training beside it has found better ones meanwhile."""
    model = load(run.path)
    write_evaluation(run, found, model.loaded_weights)
    before = run.evaluation.read_bytes()
    checkpoint.write(run.weights, checkpoint.tensors_of(RECIPE.build(run.config().data_spec)))
    with refused(CheckpointError, "have changed since they were measured"):
        write_evaluation(run, dataclasses.replace(found, k=3), model.loaded_weights)
    diagnosis = diagnose(model, load_run_data(run.path).test, limit=20, gap_examples=2, k=2)
    with refused(CheckpointError, "have changed since they were measured"):
        write_diagnosis(run, diagnosis, model.loaded_weights)
    assert run.evaluation.read_bytes() == before
    assert load(run.path).loaded_weights != model.loaded_weights


def test_an_evaluation_of_one_example_is_sound(run: RunFolder) -> None:
    one = evaluate(load(run.path), load_run_data(run.path).test.subset(1), k=2)
    assert one.nll is not None
    assert one.nll.standard_error is None
    write_evaluation(run, one, weights_of(run))
    assert read_evaluation(run) is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nll", 3.0),
        ("nll", {"value": "a", "standard_error": 1.0}),
        ("nll", {"value": 1.0}),
        ("elbo", [1.0]),
        ("elbo", {"value": 10**400, "standard_error": 1.0}),
        ("sample_quality", {}),
        ("sample_quality", {"samples": 1.0}),
        ("k", "ten"),
        ("k", -1),
        ("k", 10**30),
        ("n", 2.5),
        ("split", ["test"]),
        ("active_units", None),
        ("kl_per_dimension", [1.0]),
        ("kl_per_dimension", {"z": [None]}),
        ("kl_is_analytic", "yes"),
        ("measure", {}),
        ("proposals", {"posterior": -1}),
        ("notes", [1]),
        ("version", 99),
        ("version", "one"),
        ("kind", "diagnosis"),
        ("kind", []),
    ],
)
def test_a_damaged_evaluation_is_none_and_told_of(run: RunFolder, found: Evaluation, name: str, value: object) -> None:
    write_evaluation(run, found, weights_of(run))
    assert damaged(run) == []
    content = json.loads(run.evaluation.read_text())
    run.evaluation.write_text(json.dumps({**content, name: value}))
    assert read_evaluation(run) is None
    assert damaged(run) == ["evaluation.json"]


@pytest.mark.parametrize("name", ["k", "n", "split", "active_units", "measure", "notes", "method"])
def test_an_evaluation_without_what_all_have_is_none(run: RunFolder, found: Evaluation, name: str) -> None:
    write_evaluation(run, found, weights_of(run))
    content = json.loads(run.evaluation.read_text())
    del content[name]
    run.evaluation.write_text(json.dumps(content))
    assert read_evaluation(run) is None


def test_an_evaluation_of_an_older_version_is_read_as_far_as_it_goes(run: RunFolder, found: Evaluation) -> None:
    """Of before results were specs: neither kind nor version, one list of the KL, and no numbers of later."""
    write_evaluation(run, found, weights_of(run))
    content = json.loads(run.evaluation.read_text())
    later = ("kind", "version", "dimensions", "decoder_noise", "proposals", "bidirectional_gap", "unreliable")
    older = {name: value for name, value in content.items() if name not in later}
    older |= {"kl_per_dimension": content["kl_per_dimension"]["z"], "what_was_dropped": {"since": [1]}}
    run.evaluation.write_text(json.dumps(older))
    expected = dataclasses.replace(found, dimensions=None, decoder_noise=None, unreliable=None)
    assert read_evaluation(run) == expected
    assert damaged(run) == []


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{", b"[" * 100_000])
def test_an_evaluation_that_is_no_json_is_none(run: RunFolder, content: bytes) -> None:
    run.evaluation.write_bytes(content)
    assert read_evaluation(run) is None


def test_numbers_that_json_lacks_leave_no_file(run: RunFolder, found: Evaluation) -> None:
    write_evaluation(run, found, weights_of(run))
    write_evaluation(run, dataclasses.replace(found, effective_sample_size=float("nan")), weights_of(run))
    assert not run.evaluation.exists()


def test_without_weights_there_is_nothing_to_write_an_evaluation_of(run: RunFolder, found: Evaluation) -> None:
    weights = weights_of(run)
    run.weights.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        write_evaluation(run, found, weights)


# -- the data of a run ----------------------------------------------------------------------------------------------


def test_data_that_changed_is_refused_until_it_is_named(run: RunFolder, source: Path) -> None:
    values = np.load(source)
    np.save(source, np.concatenate([values, values[:1]]))
    with refused(UsageError, "has changed", "33 training, 4 validation, 4 test", "32 training", f"--data {source}"):
        load_run_data(run.path)
    assert len(load_run_data(run.path, source).split("all")) == 41
    assert len(load_run_data(run.path, source, divide=True).train) == 33
    values[3, 3] ^= 1
    np.save(source, values)
    with refused(UsageError, "has changed", "with other values"):
        load_run_data(run.path)
    values[3, 3] ^= 1
    np.save(source, values)
    assert len(load_run_data(run.path).train) == 32


def test_a_run_is_opened_from_another_folder(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source.parent)
    run = made(tmp_path / "run", load_data(source.name))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(load_run_data(run.path).test) == 4


def test_data_that_is_not_there_or_not_known(run: RunFolder, source: Path) -> None:
    source.unlink()
    with refused(DataError, "cannot be loaded", "--data"):
        load_run_data(run.path)
    for options in (None, DataOptions(data="")):
        run.write_config(dataclasses.replace(run.config(), data=options))
        with refused(UsageError, "passed in Python", "--data"):
            load_run_data(run.path)


def test_other_data_must_fit(run: RunFolder) -> None:
    fits = Data.from_arrays(torch.zeros(20, 6, dtype=torch.uint8))
    assert load_run_data(run.path, fits) is fits
    with refused(UsageError, "does not fit the run's model", "17 levels", "256 levels"):
        load_run_data(run.path, "digits")
    with refused(UsageError, "does not fit the run's model", "continuous"):
        load_run_data(run.path, Data.from_arrays(np.zeros((20, 6), dtype=np.float32)))


def test_what_differs_in_a_second_stage_is_told_option_by_option() -> None:
    first, second = VAE(latent_dim=2), MixturePrior()
    old = RunConfig(DIGITS, TrainingOptions(), TwoStage(Stage(first), second))
    other = TwoStage(Stage(dataclasses.replace(first, latent_dim=3)), dataclasses.replace(second, components=7))
    with pytest.raises(UsageError) as caught:
        require_same_run(old, dataclasses.replace(old, recipe=other))
    assert caught.value.got == "recipe: first.recipe.latent_dim 3 (was 2), prior.components 7 (was 100)"
    with pytest.raises(UsageError, match=r"recipe: kind 'vae' \(was 'two-stage'\)"):
        require_same_run(old, dataclasses.replace(old, recipe=first))
    assert options_of(old)["recipe.components"] == 100
