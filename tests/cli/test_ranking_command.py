"""A judge at the command line: it is trained, chooses among samples, and says what it cannot do."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import tightbound as tb
from tightbound import checkpoint
from tightbound.cli.contrastive import captions_to_rank, find_judge, rank_samples
from tightbound.cli.main import main
from tightbound.conditions import Given
from tightbound.data import Data, load_data
from tightbound.distributions import Sampling
from tightbound.encoders.contrastive import Contrastive, ContrastiveConfig, TextImageEncoder
from tightbound.errors import UsageError
from tightbound.evaluation.samples.retrieval import fits, retrieval_accuracy
from tightbound.pictures import sheets
from tightbound.recipes import CVAE, PixelCNNRecipe
from tightbound.runtime.randomness import fixed_noise
from tightbound.views import samples as pictures

COLOURS = {"red": (220, 40, 40), "green": (40, 160, 60), "blue": (50, 80, 220)}
PLACES = {"left": (0, 2), "right": (4, 2), "top": (2, 0)}
CAPTIONS = [f"{colour} square {place}" for colour, place in itertools.product(COLOURS, PLACES)]
STAGE = ["--steps", "6", "--batch-size", "16", "--no-pictures", "--device", "cpu"]
JUDGE = ["--dim", "8", "--channels", "8", "--batch-size", "16", "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coloured squares and what they are called."""
    path, lines = tmp_path_factory.mktemp("squares"), []
    for i in range(90):
        colour, place = CAPTIONS[i % 9].split(" square ")
        image = Image.new("RGB", (8, 8), (255 - i, 255, 255))
        image.paste(COLOURS[colour], (*PLACES[place], PLACES[place][0] + 4, PLACES[place][1] + 4))
        image.save(path / f"{i:02}.png")
        lines.append(json.dumps({"file_name": f"{i:02}.png", "text": CAPTIONS[i % 9]}))
    (path / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf8")
    return path


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that draws squares from texts; not well."""
    first, second = tmp_path_factory.mktemp("runs") / "codes", tmp_path_factory.mktemp("runs") / "run"
    codes = ["--codes", "16", "--channels", "8", "--code-dim", "4", "--blocks", "0"]
    assert main(["train", "vq-vae", "--data", str(folder), *codes, *STAGE, "--out", str(first)]) == 0
    prior = ["--prior", "transformer", "--condition", "text", "--layers", "1", "--width", "16", "--heads", "2"]
    assert main(["fit-prior", str(first), *prior, *STAGE, "--out", str(second)]) == 0
    return second


@pytest.fixture(scope="module")
def judge(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("judges") / "judge.safetensors"
    words = ["train-contrastive", "--data", str(folder), *JUDGE, "--epochs", "8", "--lr", "1e-2", "--out", str(path)]
    assert main(words) == 0
    return path


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: object, says: str, code: int = 2) -> None:
    capsys.readouterr()
    assert main([str(word) for word in words]) == code
    errors = capsys.readouterr().err
    assert says in errors
    assert "got:" in errors
    assert "Traceback" not in errors


# -- the judge --------------------------------------------------------------------------------------------------------


def test_training_prints_how_often_held_out_captions_are_found(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "judge.safetensors"
    words = ("train-contrastive", "--data", folder, *JUDGE, "--epochs", 2, "--out", out, "--overwrite")
    found = json.loads(printed(capsys, *words, "--json"))
    test, trained = load_data(str(folder)).test, Contrastive.load(out)
    batch = test.batch(torch.arange(len(test)))
    among = len(set(batch.captions or ()))
    accuracy = retrieval_accuracy(trained, batch.x, trained.tokens(batch.captions or ()), among)
    assert found == {
        "out": str(out),
        "accuracy": dataclasses.asdict(accuracy),
        "among": among,
        "captions": len(test),
        "split": "test",
    }
    text = printed(capsys, *words)
    assert f"among {among} in {100 * accuracy.value:.1f} ± " in text
    assert f"chance: {100 / among:.1f} %" in text
    assert f"--rank {out}" in text


def test_training_refuses_what_it_cannot_learn_from(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", tmp_path / "judge.safetensors")
    same = tmp_path / "same"
    shutil.copytree(folder, same)
    alike = [{"file_name": f"{i:02}.png", "text": "a  Square" if i % 2 else "a square"} for i in range(90)]
    (same / "metadata.jsonl").write_text("\n".join(map(json.dumps, alike)), encoding="utf8")
    train = "train-contrastive"
    refused(capsys, train, *out, says="which has none")  # digits
    refused(capsys, train, "--data", same, *out, says="all the same")
    refused(capsys, train, "--data", folder, "--validation", 0, *out, says="--validation 0.1")
    refused(capsys, train, "--data", folder, "--caption-length", 3, "--vocabulary", 256, *out, says="--caption-length")
    refused(capsys, train, "--data", folder, "--lr", 0, *out, says="must be positive")
    refused(capsys, train, "--data", folder, "--out", tmp_path / "judge.pt", says=".safetensors")
    refused(capsys, train, "--data", folder, *JUDGE, "--lr", "1e30", "--epochs", 1, *out, says="never finite", code=1)
    assert not (tmp_path / "judge.safetensors").exists()


# -- the best of several ----------------------------------------------------------------------------------------------


def test_the_best_of_several_come_first_and_their_scores_are_the_judges(
    run: Path, judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[Any] = []
    for n in (3, 12):
        words = ("--condition", "Red square  left", "-n", n, "--rank", judge, "--among", 12, "--guidance", 2)
        text = printed(capsys, "sample", run, *words, "--out", tmp_path / f"best{n}.npz")
        found.append(dict(np.load(tmp_path / f"best{n}.npz")))
        assert f"red square left: {' '.join(f'{score:.3f}' for score in found[-1]['score'][0])}" in text
        assert f"the best {n} of 12" in text
    best, every = found
    assert every["mean"].shape == (1, 12, 3, 8, 8)
    assert (np.diff(every["score"]) <= 0).all()
    assert len(np.unique(every["score"])) > 3
    assert np.array_equal(best["mean"], every["mean"][:, :3])
    assert np.array_equal(best["score"], every["score"][:, :3])
    assert best["caption"].tolist() == ["red square left"]
    encoder = Contrastive.load(judge)
    samples, tokens = torch.from_numpy(every["mean"]).transpose(0, 1), encoder.tokens(["red square left"])
    np.testing.assert_allclose(fits(encoder, samples, tokens).T.numpy(), every["score"], atol=1e-6)


def test_each_caption_of_a_file_has_its_own_best(
    run: Path, judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "captions.txt"
    file.write_text("blue square top\n\nred square left\nBlue square top\n", encoding="utf8")
    words = ("sample", run, "--condition-file", file, "-n", 2, "--rank", judge, "--out")
    printed(capsys, *words, tmp_path / "best.npz")
    found = np.load(tmp_path / "best.npz")
    assert found["caption"].tolist() == ["blue square top", "red square left"]
    assert found["mean"].shape == (2, 2, 3, 8, 8)
    encoder, images = Contrastive.load(judge), torch.from_numpy(found["mean"]).transpose(0, 1)
    expected = fits(encoder, images, encoder.tokens(found["caption"].tolist())).T
    np.testing.assert_allclose(expected.numpy(), found["score"], atol=1e-6)
    text = printed(capsys, *words, tmp_path / "best.png")
    assert "the best 2 of 8" in text
    with Image.open(tmp_path / "best.png") as image:
        assert image.height > 2 * 96
        assert image.width > 2 * 96


class Red(TextImageEncoder):
    """Finds red pictures fit for every caption; of images of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(()))

    def tokens(self, captions: Iterable[str]) -> Tensor:
        return torch.zeros(len(list(captions)), 1).long()

    def image_features(self, x: Tensor) -> Tensor:
        return x.flatten(2).mean(-1)[:, :1]

    def text_features(self, tokens: Tensor) -> Tensor:
        return torch.ones(len(tokens), 1)


def test_the_judge_decides(run: Path) -> None:
    model = tb.load(run)
    c = captions_to_rank(model, ["green square top"], None)
    with fixed_noise(3):
        captions, images, scores = rank_samples(model, Red(), c, 2, 20, Sampling())
    with fixed_noise(3):
        every = pictures.candidates(model, c, 20)
    red = every[:, 0, 0].flatten(1).mean(1)
    assert captions == ["green square top"]
    torch.testing.assert_close(scores[0], red.topk(2).values)
    torch.testing.assert_close(images[0], every[red.topk(2).indices, 0])


def test_a_folder_is_a_clip_and_may_see_pictures_of_any_size(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tightbound.encoders.contrastive.load_clip", lambda path: Red())
    words = ("--condition", "red square top", "-n", 2, "--rank", tmp_path, "--among", 6)
    assert "red square top: " in printed(capsys, "sample", run, *words, "--out", tmp_path / "a.png")


def test_a_judge_is_refused_where_it_cannot_judge(
    run: Path, judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    other = Contrastive(ContrastiveConfig((1, 8, 8), dim=8, channels=(8,)))
    other.text.initialise_captions(CAPTIONS)
    other.save(tmp_path / "grey.safetensors")
    short = Contrastive(ContrastiveConfig((3, 8, 8), vocabulary=256, length=5, dim=8, channels=(8,)))
    short.text.initialise_captions(["a", "b"])
    short.save(tmp_path / "short.safetensors")
    (tmp_path / "none.safetensors").write_bytes(b"nonsense")
    (tmp_path / "empty.npy").touch()
    np.save(tmp_path / "missing.npy", np.full((2, 32), -1))
    asked = ("sample", run, "--out", tmp_path / "a.png", "--condition", "red square top")
    refused(capsys, *asked, "--rank", tmp_path / "grey.safetensors", says="images of another shape")
    refused(capsys, *asked, "--rank", tmp_path / "short.safetensors", says="too long")
    refused(capsys, *asked, "--rank", tmp_path / "none.safetensors", says="is not a judge")
    refused(capsys, *asked, "--rank", tmp_path / "absent.safetensors", says="is not a judge")
    refused(capsys, *asked, "--rank", run / "model.safetensors", says="is not a judge")
    refused(capsys, *asked, "--rank", run, says="There is no CLIP")
    refused(capsys, *asked, "--rank", judge, "-n", 8, "--among", 4, says="--among 32")
    refused(capsys, *asked, "--rank", judge, "--among", 0, says="at least 8")
    refused(capsys, *asked, "--among", 4, says="needs --rank")
    refused(capsys, *asked[:-2], "--rank", judge, says="--rank without a caption")
    missing = ("--condition-file", tmp_path / "missing.npy")
    refused(capsys, *asked[:-2], *missing, "--rank", judge, says="without a text")
    assert not (tmp_path / "a.png").exists()


def test_a_judge_is_refused_for_models_that_are_given_no_text(judge: Path) -> None:
    data = Data.from_arrays(torch.randint(256, (30, 3, 8, 8)), labels=torch.arange(30) % 3, levels=256)
    classes = CVAE(latent_dim=2, hidden=(8,)).build(data.spec)
    with pytest.raises(UsageError, match="no text condition") as caught:
        captions_to_rank(classes, ["2"], None)
    assert "class" in str(caught.value.got)
    classes.condition = None
    with pytest.raises(UsageError, match="no text condition") as caught:
        captions_to_rank(classes, ["2"], None)
    assert "nothing" in str(caught.value.got)
    assert find_judge(judge, data.spec, "cpu").similarity(torch.rand(2, 3, 8, 8), torch.zeros(1, 32).long()).shape


def test_candidates_do_not_depend_on_how_many_are_drawn_at_once_but_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Data.from_arrays(torch.randint(2, (30, 1, 4, 4)), labels=torch.arange(30) % 2, levels=2)
    torch.manual_seed(0)
    for recipe in (CVAE(latent_dim=2, hidden=(8,)), PixelCNNRecipe(condition="class", layers=1, channels=8)):
        model, c = recipe.build(data.spec).eval(), Given({"class": torch.tensor([[0], [1]])})
        monkeypatch.setattr(pictures, "_AT_ONCE", 8)
        drawn = pictures.candidates(model, c, 101)
        assert drawn.shape == (101, 2, 1, 4, 4)
        assert 0 <= drawn.min() <= drawn.max() <= 1
        assert len(drawn.flatten(1).unique(dim=0)) > 90  # no part is another again
    assert set(drawn.unique().tolist()) == {0.0, 1.0}  # without a latent: draws


# -- what is drawn is said --------------------------------------------------------------------------------------------


def test_pictures_say_what_they_were_asked_to_be() -> None:
    x = torch.rand(4, 3, 32, 32)
    plain, told = (np.asarray(pictures.captioned(x, texts, 2)) for texts in ([""] * 4, ["a cat", "b", "c", "d"]))
    assert plain.shape == told.shape
    rows = (plain != told).any((1, 2)).nonzero()[0]
    assert (rows % (plain.shape[0] // 2)).min() >= 96  # below the picture
    long = pictures.captioned(x, ["a very long caption of many words " * 5, "b", "c", "d"], 2)
    assert plain.shape[0] < long.height < plain.shape[0] + 2 * 100
    assert long.width == plain.shape[1]


def test_a_shortened_text_is_as_wide_as_its_picture() -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(11)
    lines = pictures._wrapped("woman running in front of an office building at night in the rain and wind", font, 96)
    assert len(lines) == 4
    assert lines[-1].endswith("…")
    assert all(font.getlength(line) <= 96 for line in lines)
    assert pictures._wrapped("a cat", font, 96) == ["a cat"]
    assert pictures._wrapped("", font, 96) == [""]


def test_one_caption_stands_above_and_several_below() -> None:
    parts = {"mean": torch.rand(6, 3, 32, 32), "draw": torch.rand(6, 3, 32, 32)}
    one, two, many = (sheets.with_captions(parts, texts) for texts in (["cat"] * 6, ["cat", "dog"] * 3, list("abcdef")))
    assert two.height > two.width / 2  # two columns of three, side by side
    assert many.width > one.width / 2
    assert not np.array_equal(np.asarray(sheets.with_captions(parts, ["dog"] * 6)), np.asarray(one))


def test_a_text_and_a_class_are_described(run: Path) -> None:
    model = tb.load(run)
    c = captions_to_rank(model, ["Red square top"], None)
    assert pictures.described(model, c[[0, 0]]) == ["red square top"] * 2
    assert pictures.described(model, None) == []


# -- guidance ---------------------------------------------------------------------------------------------------------


def test_guidance_needs_a_condition_and_training_without_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = tmp_path / "plain"
    words = ("pixelcnn", "--data", "digits", "--channels", 8, "--layers", 1, "--steps", 2, "--no-pictures")
    printed(capsys, "train", *words, "--out", plain)
    out = ("--out", tmp_path / "a.png")
    refused(capsys, "sample", plain, "--guidance", 2, *out, says="unconditional")
    config = json.loads((run / "config.json").read_text(encoding="utf8"))
    shutil.copytree(run, tmp_path / "always")
    config["recipe"]["prior"]["drop_condition"] = 0.0
    (tmp_path / "always" / "config.json").write_text(json.dumps(config), encoding="utf8")
    text = ("--condition", "red square top", "-n", 1)
    refused(
        capsys,
        "sample",
        tmp_path / "always",
        *text,
        "--guidance",
        2,
        *out,
        says="trained to work without its condition",
    )
    printed(capsys, "sample", tmp_path / "always", *text, *out)
    printed(capsys, "sample", plain, "-n", 1, "--temperature", 0, "--top-k", 1, "--top-p", 0.5, *out, "--overwrite")


def test_pixels_are_drawn_as_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "pixels"
    words = ("pixelcnn", "--data", "digits", "--channels", 8, "--layers", 1, "--steps", 2, "--no-pictures")
    printed(capsys, "train", *words, "--out", run)
    printed(capsys, "sample", run, "-n", 3, "--temperature", 0, "--out", tmp_path / "a.npz")
    surest = np.load(tmp_path / "a.npz")["draw"]
    assert np.array_equal(surest[0], surest[1])  # nothing is left to chance
    printed(capsys, "sample", run, "-n", 3, "--out", tmp_path / "a.npz", "--overwrite")
    assert not np.array_equal(np.load(tmp_path / "a.npz")["draw"][0], np.load(tmp_path / "a.npz")["draw"][1])


def test_a_damaged_tokenizer_is_told(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = Path(shutil.copytree(run, tmp_path / "broken"))
    state = checkpoint.read(broken / "model.safetensors")
    state["condition.joins"][0] = 9999
    checkpoint.write(broken / "model.safetensors", state)
    out = ("--out", tmp_path / "a.png")
    refused(capsys, "sample", broken, "--condition", "red square top", *out, says="tokenizer is damaged")
