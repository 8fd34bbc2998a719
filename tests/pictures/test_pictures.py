"""Pictures show what they say: every image in its place, the mean beside the draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from instances import CONTINUOUS, GREY, ODD, RGB, examples
from tightbound.conditions import Given
from tightbound.data import DataSpec
from tightbound.distributions import Sampling
from tightbound.errors import CheckpointError, UsageError
from tightbound.models import LatentVariableModel
from tightbound.options.priors import PixelCNNPrior
from tightbound.pictures.sheets import WHY_SMALL, photographic, sheet, training_picture, with_captions
from tightbound.recipes import CVAE, VAE, VQVAE, VQVAE2, Autoencoder, GumbelVAE, PixelCNNRecipe, Stage, TwoStage
from tightbound.runtime.randomness import fixed_noise
from tightbound.views.samples import averaged, grid, panels, reconstructions, require_drawable, samples, save_picture

DIGITS = DataSpec("digits", shape=(1, 8, 8), levels=17)
SMALL: dict[str, Any] = {"latent_dim": 2, "hidden": (8,)}


def pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize(("n", "columns"), [(1, None), (4, None), (7, 3), (3, 10), (5, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_shows_every_image_row_by_row(n: int, columns: int | None, channels: int) -> None:
    images = torch.rand(n, channels, 60, 50)  # so large that it is not enlarged
    sheet = pixels(grid(images, columns))
    across = min(n, columns or int(np.ceil(n**0.5)))
    cell = (sheet.shape[1] // (-(-n // across)), sheet.shape[2] // across)
    for i in range(n):
        top, left = i // across * cell[0], i % across * cell[1]
        shown = sheet[:, top : top + 60, left : left + 50]
        torch.testing.assert_close(shown, images[i].expand(3, -1, -1), rtol=0, atol=0.5 / 255 + 1e-6)


def test_small_images_are_enlarged_without_blur() -> None:
    sheet = pixels(grid(torch.eye(8).reshape(1, 1, 8, 8)))
    assert min(sheet.shape[1:]) >= 48
    assert set(sheet.unique().tolist()) == {0.0, 1.0}


def test_values_that_cannot_be_shown_are_cut_off() -> None:
    images = torch.tensor([-3.0, 5.0, torch.nan, 0.5]).reshape(1, 1, 2, 2).expand(1, 1, 2, 2).requires_grad_()
    shown = pixels(grid(torch.nn.functional.interpolate(images, scale_factor=30)))
    assert shown[0, 0, 0] == 0
    assert shown[0, 0, 59] == 1
    assert shown[0, 59, 0] == 0
    assert shown[0, 59, 59] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("across", [False, True])
def test_panels_hold_their_pictures(across: bool) -> None:
    colours = [(200, 0, 0), (0, 200, 0)]
    parts = [(f"a title {i}", Image.new("RGB", (80, 30 + 20 * i), colour)) for i, colour in enumerate(colours)]
    sheet = np.array(panels(parts, across))
    for colour, (_, image) in zip(colours, parts, strict=True):
        assert (sheet == np.array(colour)).all(-1).sum() == image.width * image.height


def test_only_images_can_be_drawn() -> None:
    for spec in (GREY, RGB, ODD):
        require_drawable(spec)
    for spec in (CONTINUOUS, DataSpec("two channels", (2, 8, 8), levels=17)):
        with pytest.raises(UsageError, match="drawn"):
            require_drawable(spec)


def test_a_picture_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "picture.png"
    save_picture(Image.new("RGB", (3, 2)), path)
    with Image.open(path) as image:
        assert image.size == (3, 2)
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError):
        save_picture(Image.new("RGB", (3, 2)), tmp_path / "file" / "picture.png")


def trained(spec: DataSpec) -> LatentVariableModel:
    return VAE(**SMALL).build(spec)


def test_a_reconstruction_is_the_mean_and_not_another_draw() -> None:
    model, x = trained(GREY), examples(GREY, 4).float()
    one, other = reconstructions(model(), x), reconstructions(model(), x)
    mean, draw = "mean of p(x|z)", "draw from p(x|z)"
    assert torch.equal(one["data"], x)
    assert torch.equal(one[mean], other[mean])
    assert not torch.equal(one[draw], other[draw])
    torch.testing.assert_close(one[mean], model.likelihood(model.posterior(x).mean).mean)
    assert all(value.shape == x.shape and not value.requires_grad for value in one.values())


def test_an_average_of_decoded_samples_is_nearer_than_one_of_them() -> None:
    """By the variance of the decoded samples: the mean of their errors is the error of their mean and that."""
    torch.manual_seed(0)
    model, x = trained(GREY), examples(GREY, 4).float()
    with fixed_noise(3):
        one, average = averaged(model(), x, 500).values()
    with fixed_noise(3):
        first = averaged(model(), x, 1)
    titles = [title.split()[0] for title in [*reconstructions(model(), x), *first]]
    assert len(set(titles)) == len(titles)  # by them the arrays of an .npz are named
    assert all(torch.equal(value, one) for value in first.values())
    with torch.no_grad():
        decoded = model.likelihood(model.posterior(x).sample((500,))).mean
    errors = (x - decoded).square().flatten(2).sum(2)
    spread = decoded.var(0, correction=0).flatten(1).sum(1)
    expected = errors.mean(0) - spread
    found = (x - average).square().flatten(1).sum(1)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02)
    assert (found < errors.mean(0)).all()


def test_the_samples_of_a_point_are_not_averaged() -> None:
    with pytest.raises(UsageError, match=r"all its samples are the same(?s:.*)Leave --samples out"):
        averaged(Autoencoder(latent_dim=2, hidden=(8,)).build(GREY)(), examples(GREY, 4).float(), 10)


def test_mean_and_draw_of_a_sample_belong_together() -> None:
    model = trained(GREY)
    with torch.no_grad():
        model.likelihood.log_scale.fill_(-9.0)  # pyright: ignore[reportCallIssue]
    drawn = samples(model, 20)
    mean, draw = drawn["mean of p(x|z)"], drawn["draw from p(x|z)"]
    assert mean.shape == draw.shape == (20, *GREY.shape)
    assert (mean - draw).abs().max() <= 1 / 16 + 1e-3  # a level, for the scale is almost nothing
    assert (mean - draw.roll(1, 0)).abs().max() > 0.2


def test_temperature_moves_samples_to_the_middle() -> None:
    model = trained(CONTINUOUS)
    means = [samples(model, 200, how=Sampling(temperature))["mean of p(x|z)"] for temperature in (0.0, 0.5, 1.0)]
    torch.testing.assert_close(means[0], means[0][:1].expand(200, -1))
    spreads = [mean.std(0).mean() for mean in means]
    assert spreads[0] < spreads[1] < spreads[2]


@pytest.mark.parametrize("recipe", [VAE(**SMALL), Autoencoder(**SMALL)])
def test_a_training_picture_is_a_picture(recipe: VAE | Autoencoder, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    training_picture(recipe.build(GREY), examples(GREY, 3).float(), None, path)
    with Image.open(path) as image:
        assert min(image.size) > 100


def test_the_top_alone_is_shown_where_there_are_several_levels() -> None:
    """With the way down from the top cut off, nothing of an example is left in what the top alone shows."""
    model = VQVAE2(codes=16, channels=(8,)).build(DIGITS)
    x = torch.rand(40, *DIGITS.shape)
    posterior: Any = model.posterior
    posterior.initialise(x)
    shown = reconstructions(model(), x)
    assert list(shown) == ["data", "top alone: mean of p(x|z)", "mean of p(x|z)", "draw from p(x|z)"]
    top = shown["top alone: mean of p(x|z)"]
    assert not torch.allclose(top, shown["mean of p(x|z)"])
    assert not torch.allclose(top[0], top[1])
    decoder: Any = model.likelihood.network
    for lift in decoder.lifts:
        lift.register_forward_hook(lambda module, given, out: torch.zeros_like(out))
    cut = reconstructions(model(), x)
    assert torch.equal(cut["top alone: mean of p(x|z)"][0], cut["top alone: mean of p(x|z)"][1])
    assert not torch.equal(cut["mean of p(x|z)"][0], cut["mean of p(x|z)"][1])


# -- drawing from the prior -----------------------------------------------------------------------------------------

CODED: dict[str, Any] = {"codes": 16, "channels": (8,), "blocks": 1}


@pytest.mark.parametrize(
    "recipe",
    [VQVAE(**CODED), VQVAE2(**CODED), GumbelVAE(hidden=(8,)), GumbelVAE(hidden=(8,), latents="binary")],
    ids=["vq-vae", "vq-vae-2", "gumbel-vae", "bits"],
)
def test_a_temperature_of_uniform_codes_is_refused(recipe: VAE | VQVAE) -> None:
    model = recipe.build(DIGITS)
    assert len(samples(model, 3)["mean of p(x|z)"]) == 3
    with pytest.raises(UsageError, match="has no effect"):
        samples(model, 3, how=Sampling(0.7))


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_a_temperature_divides_the_logits_of_a_learned_prior(temperature: float) -> None:
    model = GumbelVAE(positions=2, classes=3, hidden=(8,), prior="learned").build(DIGITS)
    logits = torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.5, 2.0]])
    prior: Any = model.prior
    prior.logits.data.copy_(logits)
    drawn, n = model().sample_latent((20_000,), Sampling(temperature)), 20_000
    assert drawn.unique().tolist() == [0, 1]
    p = (logits / temperature).softmax(-1)
    assert ((drawn.mean(0) - p).abs() < 5 * (p * (1 - p) / n).sqrt()).all()


@pytest.mark.parametrize("temperature", [0.5, 1e-40, 0.0])
def test_a_temperature_divides_the_logits_of_learned_bits(temperature: float) -> None:
    model, n = GumbelVAE(positions=3, latents="binary", hidden=(8,), prior="learned").build(DIGITS), 20_000
    prior: Any = model.prior
    prior.logits.data.copy_(torch.tensor([1.0, -0.3, 0.2]))
    drawn = model().sample_latent((n,), Sampling(temperature)).mean(0)
    p = (prior.logits.detach() / max(temperature, 1e-6)).sigmoid()
    assert ((drawn - p).abs() <= 5 * (p * (1 - p) / n).sqrt()).all()


def test_two_who_sample_one_model_in_turns_get_what_each_alone_gets() -> None:
    """How samples are drawn is said with each draw, and nothing of it stays behind in the model."""
    model = TwoStage(Stage(VQVAE(**CODED)), PixelCNNPrior(channels=8, layers=2)).build(DIGITS).eval()

    def drawn(*temperatures: float) -> list[torch.Tensor]:
        found = list[torch.Tensor]()
        for temperature in temperatures:
            with fixed_noise(1):
                found.append(model().sample((5,), how=Sampling(temperature)))
        return found

    cold, warm = drawn(0.0, 0.0, 0.0), drawn(1.5, 1.5, 1.5)
    turns = drawn(0.0, 1.5, 0.0, 1.5)
    assert torch.equal(turns[0], cold[0])
    assert torch.equal(turns[2], cold[0])
    assert torch.equal(turns[1], warm[0])
    assert torch.equal(turns[3], warm[0])
    assert not torch.equal(cold[0], warm[0])
    same = samples(model, 3, how=Sampling(temperature=0))["mean of p(x|z)"]
    torch.testing.assert_close(same, same[:1].expand_as(same))


def test_samples_are_drawn_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces of any size each sample belongs to its condition, and none is another's copy."""
    spec = DataSpec("digits", shape=(1, 8, 8), levels=17, classes=tuple("abcdefghij"))
    model = CVAE(latent_dim=2, hidden=(32,)).build(spec).eval()
    c = Given({"class": torch.arange(10).unsqueeze(-1)})
    sizes: list[int] = []
    model.likelihood.register_forward_hook(lambda module, given, out: sizes.append(len(given[0])))
    for piece in (4, 100):
        monkeypatch.setattr("tightbound.views.samples._AT_ONCE", piece)
        mean = samples(model, 10, c, Sampling(0.0))["mean of p(x|z)"]  # without noise all pieces are the same
        expected = model(c).likelihood(model(c).prior().mean).mean
        torch.testing.assert_close(mean, expected)
        assert max(sizes[:-1]) <= piece
        sizes.clear()
    monkeypatch.setattr("tightbound.views.samples._AT_ONCE", 3)
    drawn = samples(VAE(**SMALL).build(DIGITS), 8)
    assert all(len(x) == 8 == len(x.flatten(1).unique(dim=0)) for x in drawn.values())


def test_pieces_of_a_model_without_a_latent_are_no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    model = PixelCNNRecipe(channels=8, layers=2, kernel=3).build(DIGITS)
    monkeypatch.setattr("tightbound.views.samples._AT_ONCE", 2)
    drawn = samples(model, 4)
    assert list(drawn) == ["draw from p(x)"]
    assert len(drawn["draw from p(x)"].flatten(1).unique(dim=0)) == 4


# -- what stands where ------------------------------------------------------------------------------------------------

PHOTOS = DataSpec("photos", (3, 64, 64), 256)


def found_at(picture: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, width and height of what has a colour."""
    rows, columns = np.nonzero((np.array(picture) == np.array(colour)).all(-1))
    return int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


def of_colour(n: int, shape: tuple[int, ...], colour: tuple[int, int, int]) -> Tensor:
    return (torch.tensor(colour) / 255)[: shape[0], None, None].expand(n, *shape)


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.mark.parametrize("side", [33, 64, 100, 200, 256])
@pytest.mark.parametrize("texts", [(), ("cat",) * 4, ("cat", "dog", "cat", "dog"), ("a", "b", "c", "d")], ids=str)
def test_of_photographs_draws_stand_small_below_the_mean(side: int, texts: tuple[str, ...]) -> None:
    spec = DataSpec("photos", (3, side, side), 256)
    parts = {
        title: of_colour(4, spec.shape, colour)
        for title, colour in {"data": BLUE, "mean of p(x|z)": RED, "draw from p(x|z)": GREEN}.items()
    }
    picture = with_captions(parts, texts, spec) if texts else sheet(parts, spec, across=True)
    data, mean, draw = (found_at(picture, colour) for colour in (BLUE, RED, GREEN))
    assert draw[1] > mean[1] + mean[3]
    assert draw[2] < 0.8 * mean[2]
    assert data[1] == mean[1] or len(set(texts)) > 1
    assert abs(data[0] - draw[0]) <= 10


@pytest.mark.parametrize("spec", [GREY, DIGITS, DataSpec("mnist", (1, 28, 28), 256), DataSpec("mask", (1, 64, 64), 2)])
def test_of_digits_they_stand_side_by_side(spec: DataSpec) -> None:
    assert not photographic(spec)
    parts = {"mean of p(x|z)": torch.zeros(4, *spec.shape), "draw from p(x|z)": torch.full((4, *spec.shape), 0.2)}
    picture = sheet(parts, spec, across=True)
    mean, draw = found_at(picture, (0, 0, 0)), found_at(picture, (51, 51, 51))
    assert mean[1:] == draw[1:]
    assert draw[0] > mean[0] + mean[2]


def test_draws_alone_are_not_small() -> None:
    parts = {"draw from p(x|z)": of_colour(4, PHOTOS.shape, GREEN)}
    assert found_at(sheet(parts, PHOTOS), GREEN)[2] > 256
    assert photographic(DataSpec("scans", (1, 40, 40), None))
    assert not photographic(None)
    assert not photographic(CONTINUOUS)


def test_a_small_draw_keeps_its_noise() -> None:
    noise = torch.rand(1, 3, 256, 256)
    picture = pixels(sheet({"mean": torch.ones(1, 3, 256, 256), "draw from p(x|z)": noise}, PHOTOS))
    assert picture[..., -70:-15, 15:70].std() > 0.9 * noise.std()
    assert "noise" in WHY_SMALL
