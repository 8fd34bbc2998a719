"""The command line as a stranger meets it: one clear message, the right exit code, nothing lost."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from PIL import Image
from tyro.conf import OmitArgPrefixes

import tightbound as tb
from tightbound import checkpoint
from tightbound.cli import commands
from tightbound.cli.choices import prepared_command
from tightbound.cli.main import main
from tightbound.errors import CheckpointError, UsageError
from tightbound.options.choices import offered
from tightbound.options.objectives import Capacity, Elbo, LatentObjective
from tightbound.recipes import VAE
from tightbound.recipes.base import recipes_by_name
from tightbound.reporting.command import reproduction_command
from tightbound.runs import RunFolder
from tightbound.runtime.lock import locked

TRAIN = ["--steps", "12", "--latent-dim", "3", "--hidden", "16", "--no-pictures", "--device", "cpu"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "vae", "--out", str(path), *TRAIN]) == 0
    return path


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """The run, to be damaged."""
    import shutil

    return Path(shutil.copytree(run, tmp_path / "copy"))


def refused(capsys: pytest.CaptureFixture[str], *words: object, code: int, says: str) -> None:
    capsys.readouterr()
    assert main([str(word) for word in words]) == code
    errors = capsys.readouterr().err
    assert says in errors
    assert "Traceback" not in errors


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


# -- commands ---------------------------------------------------------------------------------------------------------


def test_evaluate_prints_a_bound_without_an_error_where_it_is_not_trusted(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(capsys, "evaluate", run, "--limit", "40", "--budget", "0").splitlines()
    assert lines[0].startswith("NLL ≤ ")
    assert not any("±" in line for line in lines)
    cells = [cell.strip() for cell in next(line for line in lines if "│ NLL" in line).split("│")]
    assert cells[2].startswith("≤ ")
    assert cells[3] == ""


def test_evaluate_prints_the_promised_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, "evaluate", run, "-k", "10", "--json"))
    for name in ("elbo", "reconstruction", "kl", "nll", "bits_per_dim"):
        assert set(found[name]) == {"value", "standard_error"}
        assert found[name]["standard_error"] > 0
    assert (found["k"], found["n"], found["split"]) == (10, 360, "test")
    assert 1 <= found["effective_sample_size"] <= 10
    assert 0 <= found["active_units"] <= 3
    assert found["nll"]["value"] > 0
    assert found["elbo"]["value"] == pytest.approx(found["reconstruction"]["value"] - found["kl"]["value"])
    assert json.loads((run / "evaluation.json").read_text()).items() >= found.items()


def test_evaluate_prints_a_table(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "evaluate", run, "-k", "5", "--limit", "20", "--split", "valid")
    assert "20 valid examples, k = 5" in out
    assert "nats per example" in out


@pytest.mark.parametrize("command", ["sample", "reconstruct", "interpolate", "traverse"])
def test_pictures_and_arrays(run: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, command, run, "-n", "3", "--out", tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("L"))
        assert min(image.size) > 60
        assert len(np.unique(pixels)) > 10
    printed(capsys, command, run, "-n", "3", "--out", tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays.files
        assert arrays["mean"].shape[-3:] == (1, 8, 8)


def test_the_same_seed_gives_the_same_picture(run: Path, tmp_path: Path) -> None:
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        main(["sample", str(run), "--seed", str(seed), "--out", str(tmp_path / f"{name}.png")])
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_encode_writes_every_example(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "encode", run, "--out", tmp_path / "z.npz")
    with np.load(tmp_path / "z.npz", allow_pickle=False) as arrays:
        assert arrays["mean"].shape == (1797, 3)
        assert (arrays["split"] == "test").sum() == 360
        assert sorted(map(int, arrays["names"])) == list(range(1797))


def test_info_recipes_and_data_report(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(printed(capsys, "info", run, "--json"))["steps"] == 12
    assert "torch" in json.loads(printed(capsys, "info", "--json"))
    assert set(json.loads(printed(capsys, "recipes", "--json"))) >= {"vae", "autoencoder", "linear-vae"}
    assert "digits" in json.loads(printed(capsys, "data", "--json"))
    assert "1293" in printed(capsys, "data", "digits")
    found = json.loads(printed(capsys, "data", "digits", "--levels", "stretch", "--json"))
    assert (found["levels"], found["notes"]) == (256, ["Values 0 ... 16 were scaled to 256 levels."])
    assert "note: Values 0 ... 16 were scaled" in printed(capsys, "data", "digits", "--levels", "0:16")
    assert "latent_dim" in printed(capsys, "info", run)


def test_report_is_written(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "report", run, "-k", "5")
    assert (run / "report.html").read_text().lower().startswith("<!doctype html>")


@pytest.mark.parametrize("recipe", sorted(recipes_by_name()))
def test_training_help_begins_with_five_options(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, rest = printed(capsys, "train", recipe, "--help").split("All options", maxsplit=1)
    names = [line.split()[0] for line in first.splitlines() if line.startswith("  --")]
    assert names[:3] == ["--out", "--data", "--epochs"]
    assert len(names) == 5
    assert all(f"{name} " in rest for name in names)


def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for name in commands.COMMANDS:
        _, examples = printed(capsys, name, "--help").split("Example", maxsplit=1)
        assert f"tightbound {name}" in examples
    for recipe in ("vae", "autoencoder", "linear-vae"):
        out = printed(capsys, "train", recipe, "--help")
        for option in ("--out", "--seed", "--epochs", "--steps", "--batch-size", "--lr", "--latent-dim", "--resume"):
            assert option in out


def test_resume_needs_nothing_but_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["train", "vae", "--out", str(out), *TRAIN]) == 0
    assert "finished at step 12 of 12" in printed(capsys, "train", "--resume", "--out", out)
    refused(capsys, "train", "vae", "--resume", "--out", out, "--lr", "0.1", code=2, says="lr 0.1 (was 0.001)")
    refused(capsys, "train", "autoencoder", "--resume", "--out", out, code=2, says="another recipe")


def test_another_data_set_through_the_same_model(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "ok.npz", x=np.random.default_rng(0).integers(0, 17, (40, 8, 8), dtype=np.uint8), levels=17)
    assert json.loads(printed(capsys, "evaluate", run, "--data", tmp_path / "ok.npz", "-k", "2", "--json"))["n"] == 40
    np.savez(tmp_path / "other.npz", x=np.zeros((40, 9, 9), dtype=np.uint8))
    refused(capsys, "evaluate", run, "--data", tmp_path / "other.npz", code=2, says="does not fit the run's model")


def test_grey_cross_entropy_is_marked_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "grey"
    assert main(["train", "vae", "--likelihood", "bernoulli", "--out", str(out), *TRAIN]) == 0
    assert "not a likelihood of that data" in capsys.readouterr().err
    found = json.loads(printed(capsys, "evaluate", out, "-k", "2", "--json"))
    assert (found["measure"], found["bits_per_dim"]) == ("none", None)
    assert "not a likelihood of that data" in printed(capsys, "evaluate", out, "-k", "2")
    printed(capsys, "report", out, "-k", "2")
    assert "not a likelihood of that data" in (out / "report.html").read_text()


def test_help_does_not_import_torch() -> None:
    script = "import sys; from tightbound.cli.main import main; main(['--help']); main(['train', 'vae', '--help']); "
    script += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], stdout=subprocess.DEVNULL, check=False).returncode == 0


# -- choices among registered specs ----------------------------------------------------------------------------------


def test_the_options_of_what_is_chosen_lie_flat_beside_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--objective", "iwae", "--samples", "3", "--gradient=dreg"]
    assert main(["train", "vae", "--out", str(tmp_path / "run"), *words, *TRAIN]) == 0
    assert "objective iwae" in capsys.readouterr().err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    expected = {"kind": "iwae", "version": 1, "samples": 3, "gradient": "dreg"}
    assert config["recipe"]["objective"] == expected
    assert "finished at step 12" in printed(capsys, "train", "--resume", "--out", tmp_path / "run")
    again = reproduction_command(RunFolder(tmp_path / "run").config(), "again") or ""
    assert "--objective iwae --samples 3 --gradient dreg" in again


def test_help_shows_the_options_of_what_is_chosen_and_names_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    elbo, iwae = (printed(capsys, "train", "vae", *words, "--help") for words in ([], ["--objective", "iwae"]))
    names = set(offered(LatentObjective, "objective"))
    for shown in (elbo, iwae):
        assert all(name in shown for name in names)
    assert "--free-bits " in elbo
    assert "--free-bits " not in iwae
    assert "--gradient " in iwae
    assert "--gradient " not in elbo


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--objective", "iwae", "--beta", "2"], "--beta is an option of --objective elbo or"),
        (["--objective", "iwae", "--beta", "2"], "its options: --gradient, --samples"),
        (["--gradient", "dreg"], "--objective iwae"),
        (["--capacity=5"], "Leave --capacity out, or add --objective capacity."),
        (["--objective", "iwea"], "Did you mean 'iwae'?"),
        (["--objective", "score", "--samples", "1"], "needs at least two samples"),
    ],
)
def test_an_option_of_another_choice_is_refused(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, "train", "vae", "--out", tmp_path / "x", *words, code=2, says=says)
    assert not (tmp_path / "x").exists()


def test_a_command_whose_argument_has_a_choice_is_prepared_alike() -> None:
    told: list[VAE] = []

    def fit(recipe: OmitArgPrefixes[VAE], out: Path) -> None:
        told.append(recipe)

    for words, objective in (([], Elbo()), (["--objective", "capacity", "--capacity", "3"], Capacity(capacity=3.0))):
        tyro.cli(prepared_command(fit, words), args=["--out", "x", "--latent-dim", "2", *words])
        assert told[-1] == VAE(latent_dim=2, objective=objective)
    with pytest.raises(UsageError, match="--beta is an option"):
        prepared_command(fit, ["--objective", "iwae", "--beta", "2"])


# -- bad usage: 2 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], "Did you mean 'train'?"),
        (["train", "vea", "--out", "x"], "Did you mean 'vae'?"),
        (["train", "vae", "--data", "digit", "--out", "x"], "Did you mean 'digits'?"),
        (["train", "vae", "--latent-dmi", "3", "--out", "x"], "--latent-dim"),
        (["train", "vae", "--latent-dim", "many", "--out", "x"], "latent-dim"),
        (["train", "vae", "--latent-dim", "0", "--out", "x"], "at least 1"),
        (["train", "vae", "--likelihood", "poisson", "--out", "x"], "poisson"),
        (["train", "vae", "--variance", "-1", "--likelihood", "gaussian", "--out", "x"], "positive"),
        (["train", "vae", "--binarize", "dynamic", "--dequantize", "--out", "x"], "dequantize"),
        (["train", "vae", "--device", "tpu", "--out", "x"], "device 'tpu' is not available"),
        (["train", "vae"], "--out"),
        (["train", "--out", "x"], "No recipe was given"),
        (["train", "--resume"], "--out RUN"),
        (["evaluate"], "RUN"),
        ([], ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(capsys, *words, code=2, says=says)
    assert not (tmp_path / "x").exists()


def test_bad_values(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "evaluate", run, "-k", "0", code=2, says="At least one sample")
    refused(capsys, "sample", run, "-n", "0", code=2, says="-n must be at least 1")
    refused(capsys, "reconstruct", run, "-n", "9999", code=2, says="has fewer examples")
    refused(capsys, "sample", run, "--out", tmp_path / "a.gif", code=2, says=".png or .npz")
    refused(capsys, "encode", run, "--out", tmp_path / "a.png", code=2, says=".npz")
    refused(capsys, "train", "vae", "--out", run, code=2, says="already holds a run")
    refused(capsys, "sample", run, "--temperature", "nan", code=2, says="temperature")
    refused(capsys, "traverse", run, "--steps", "0", code=2, says="--steps must be at least 1")
    refused(capsys, "traverse", run, "--example", "-1", code=2, says="no example with that index")
    refused(capsys, "interpolate", run, "-n", "200", code=2, says="200 pairs need 400 examples")
    refused(capsys, "sample", run, "-n", "100000000000", code=2, says="Too many examples for the memory")


def test_weights_that_are_no_numbers(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = checkpoint.read(copy / "model.safetensors")
    checkpoint.write(copy / "model.safetensors", {name: t * float("nan") for name, t in tensors.items()})
    refused(capsys, "evaluate", copy, "-k", "2", code=1, says="is not finite")


def test_walks_come_with_their_latents(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "traverse", run, "-n", "2", "--steps", "5", "--out", tmp_path / "t.npz")
    printed(capsys, "interpolate", run, "-n", "4", "--steps", "5", "--out", tmp_path / "i.npz")
    with np.load(tmp_path / "t.npz") as traversal, np.load(tmp_path / "i.npz") as interpolation:
        assert traversal["mean"].shape == (2, 5, 1, 8, 8)
        assert traversal["latents"].shape == (2, 5, 3)
        assert traversal["dimensions"].shape == (2,)
        assert interpolation["mean"].shape == (4, 5, 1, 8, 8)


def test_markup_in_names_is_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("[bold]", "plain"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("L", (8, 8), i).save(tmp_path / "images" / name / f"{i}.png")
    assert "[bold]" in printed(capsys, "data", tmp_path / "images")


# -- failures: 1 ------------------------------------------------------------------------------------------------------


def test_missing_data_and_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    refused(capsys, "evaluate", tmp_path / "none", code=1, says="does not exist")
    refused(capsys, "evaluate", tmp_path / "empty", code=1, says="has no config.json")
    refused(capsys, "train", "vae", "--data", tmp_path / "none", "--out", tmp_path / "r", code=1, says="file or folder")
    refused(capsys, "train", "vae", "--data", tmp_path / "empty", "--out", tmp_path / "r", code=1, says="image")
    assert not (tmp_path / "r").exists()


def test_half_written_runs(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "model.safetensors").unlink()
    refused(capsys, "evaluate", copy, code=1, says="tightbound train --resume")
    (copy / "config.json").write_text('{"kind": "run", "vers')
    refused(capsys, "evaluate", copy, code=1, says="cannot be read")


def test_what_cannot_be_stored_is_printed_all_the_same(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read_only(path: Path, value: object) -> None:
        raise CheckpointError(f"{path} could not be written.", got="Read-only file system")

    monkeypatch.setattr(checkpoint, "write_json", read_only)
    for command in ("evaluate", "diagnose"):
        assert main([command, str(copy), "-k", "2", "--json"]) == 0
        said = capsys.readouterr()
        assert json.loads(said.out)["n"] == 360
        assert "not stored" in said.err
        assert "Read-only" in said.err


def test_an_interrupt_is_no_traceback(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tightbound.data.load_data", interrupted)
    for words in (["evaluate", run], ["sample", run], ["train", "vae", "--out", run.with_name("new")]):
        monkeypatch.setattr("tightbound.runtime.randomness.fixed_noise", interrupted)
        refused(capsys, *words, code=130, says="Interrupted")
    assert not run.with_name("new").exists()


def test_a_second_training_is_refused(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(copy):
        refused(capsys, "train", "--resume", "--out", copy, code=1, says=f"process {os.getpid()}")
        new = ["train", "vae", "--out", copy.with_name("other"), *TRAIN]
        with locked(copy.with_name("other")):
            refused(capsys, *new, code=1, says="already being trained")
    printed(capsys, *new)


def test_truncated_weights(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(capsys, "evaluate", copy, code=1, says="truncated or damaged")
    path.write_bytes(b"")
    refused(capsys, "evaluate", copy, code=1, says="truncated or damaged")


def test_missing_and_extra_tensors(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / "model.safetensors"
    tensors = checkpoint.read(path)
    name = next(iter(tensors))
    checkpoint.write(path, {k: v for k, v in tensors.items() if k != name})
    refused(capsys, "evaluate", copy, code=1, says=f"missing: {name}")
    checkpoint.write(path, {**tensors, "stranger": torch.zeros(1)})
    refused(capsys, "evaluate", copy, code=1, says="unexpected: stranger")


class Bomb:
    def __reduce__(self) -> tuple:
        return (os.system, (f"touch {os.environ['BOMB']}",))


def test_a_pickle_is_refused_and_does_not_run(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    (copy / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    refused(capsys, "evaluate", copy, code=1, says="is a pickle")
    torch.save({"model": torch.zeros(1)}, copy / "model.safetensors")
    refused(capsys, "evaluate", copy, code=1, says="is a pickle")
    assert not (tmp_path / "exploded").exists()


def test_an_autoencoder_has_no_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ae"
    assert main(["train", "autoencoder", "--out", str(out), *TRAIN]) == 0
    refused(capsys, "sample", out, code=1, says="has no prior")
    found = json.loads(printed(capsys, "evaluate", out, "--json"))
    assert found["nll"] is None
    assert found["elbo"] is None
    assert found["reconstruction"]["value"] < 0


def test_arrays_from_python_need_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tightbound.data import Data

    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    data = Data.from_arrays(images)
    tb.train(tb.recipes.VAE(hidden=(8,)).build(data.spec), data, steps=2, out=tmp_path / "run")
    refused(capsys, "evaluate", tmp_path / "run", code=2, says="passed in Python")
    np.save(tmp_path / "a.npy", images)
    printed(capsys, "evaluate", tmp_path / "run", "--data", tmp_path / "a.npy", "-k", "2")


def test_a_closed_pipe_is_no_traceback(run: Path) -> None:
    script = f"{sys.executable} -m tightbound info {run} --json | true"
    done = subprocess.run(script, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_the_options_that_mean_the_same_everywhere_are_frozen() -> None:
    """A change of the command line is a decision: change this list with it."""
    import inspect

    surface = {name: sorted(inspect.signature(function).parameters) for name, function in commands.COMMANDS.items()}
    assert surface == {
        "train": ["arguments"],
        "fit-prior": ["data", "json", "latents", "out", "prior", "resume", "resume_from", "run", "training"],
        "train-contrastive": [
            *("batch_size", "caption_length", "channels", "data", "device", "dim", "epochs", "json"),
            *("lr", "out", "overwrite", "patience", "seed", "vocabulary", "weight_decay"),
        ],
        "evaluate": [
            *("budget", "compile", "data", "device", "json", "k", "limit", "method"),
            *("precision", "run", "sample_quality", "seed", "split", "temperatures"),
        ],
        "complete": ["data", "device", "n", "out", "overwrite", "run", "samples", "seed", "split"],
        "diagnose": ["data", "device", "gap_examples", "json", "k", "limit", "run", "seed", "split"],
        "sample": [
            *("among", "by_layer", "condition", "condition_file", "device", "guidance", "guidance_interval"),
            *("guidance_rescale", "guide_with", "n", "out", "overwrite", "rank", "run", "sampler", "seed", "steps"),
            *("temperature", "top_k", "top_p"),
        ],
        "reconstruct": ["data", "device", "n", "out", "overwrite", "run", "samples", "seed", "split"],
        "interpolate": ["data", "device", "n", "out", "overwrite", "run", "seed", "split", "steps"],
        "traverse": ["data", "device", "example", "layer", "n", "out", "overwrite", "run", "seed", "split", "steps"],
        "encode": ["data", "device", "out", "overwrite", "run", "seed", "split"],
        "export": ["fold", "folder", "overwrite", "run", "to"],
        "import": ["image_size", "out", "path"],
        "report": ["data", "device", "k", "quick", "run", "seed"],
        "compare": ["data", "device", "json", "k", "limit", "out", "overwrite", "runs", "seed", "split"],
        "info": ["json", "run"],
        "recipes": ["json"],
        "data": ["json", "options", "source"],
    }


def test_a_model_without_a_latent_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "pixels"
    words = ("pixelcnn", "--data", "digits", "--channels", "8", "--layers", "1", "--steps", "2", "--no-pictures")
    assert main(["train", *words, "--out", str(run)]) == 0
    for command in ("reconstruct", "interpolate", "traverse"):
        refused(capsys, command, run, code=2, says="no latent")
    refused(capsys, "encode", run, "--out", tmp_path / "z.npz", code=2, says="no latent")
    refused(capsys, "diagnose", run, code=2, says="no latent")
