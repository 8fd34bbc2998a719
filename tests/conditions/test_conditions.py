"""Conditions: from batches and from words, what is missing among them, and models that are given them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tightbound.cli.conditions import read_conditions
from tightbound.conditions import (
    ClassCondition,
    Condition,
    Given,
    PartCondition,
    VectorCondition,
    observed_part,
)
from tightbound.data import Batch, Data, DataSpec
from tightbound.data.sources.arrays import as_conditions
from tightbound.errors import DataError, ObjectiveError, UsageError
from tightbound.models import LatentVariableModel
from tightbound.networks import ClassEmbedding, ImageEmbedding, Observed, TokenEmbedding
from tightbound.recipes import CVAE, VAE
from tightbound.views.samples import conditions_to_show

NAMES = tuple("abc")


def data(n: int = 60, **options: Any) -> Data:
    """Pictures whose rows tell their class, with numbers beside them."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, n)
    images = np.zeros((n, 6, 6), np.uint8)
    images[np.arange(n), 2 * labels] = 4
    images += generator.integers(0, 2, images.shape).astype(np.uint8)
    return Data.from_arrays(images, labels=labels, levels=6, classes=NAMES, **options)


def batch_of(x: Tensor, labels: Tensor | None = None, conditions: Tensor | None = None) -> Batch:
    return Batch(x, labels, None, conditions)


CONDITIONS = {
    "class": (ClassCondition(NAMES), batch_of(torch.zeros(5, 1, 4, 4), torch.tensor([0, 2, 1, 1, 0]))),
    "vector": (VectorCondition((3,)), batch_of(torch.zeros(5, 1, 4, 4), None, torch.randn(5, 3))),
    "image": (VectorCondition((1, 8, 8)), batch_of(torch.zeros(5, 1, 4, 4), None, torch.randn(5, 1, 8, 8))),
    "part": (PartCondition((1, 4, 4), 2), batch_of(torch.rand(5, 1, 4, 4))),
}
EMBEDDINGS = {
    "class": ClassEmbedding(3, 7),
    "vector": Observed(3, 7),
    "image": ImageEmbedding((1, 8, 8), 7, (4,)),
    "part": Observed(16, 7),
}


@pytest.mark.parametrize("kind", list(CONDITIONS))
def test_conditions_are_vectors_that_embeddings_understand_missing_or_not(kind: str) -> None:
    condition, batch = CONDITIONS[kind]
    c = condition(batch)
    assert list(c) == [kind]
    assert c[kind].shape == (5, condition.size)
    features, none = EMBEDDINGS[kind](c[kind]), EMBEDDINGS[kind](c.missing()[kind])
    assert features.shape == none.shape == (5, 7)
    assert features.isfinite().all()
    assert none.isfinite().all()
    torch.testing.assert_close(none, none[:1].expand_as(none))
    assert not torch.equal(features, none)
    assert isinstance(condition.describe(c[0]), str)
    assert condition.describe(c[0]) != condition.describe(c.missing()[0])


def test_conditions_are_dropped_while_a_model_learns_and_only_then() -> None:
    batch = batch_of(torch.zeros(4000, 1), torch.ones(4000, dtype=torch.long))
    condition = ClassCondition(NAMES, drop=0.2)
    dropped = (condition(batch)["class"] == -1).double().mean().item()
    assert abs(dropped - 0.2) < 4 * math.sqrt(0.2 * 0.8 / 4000)
    assert (condition.eval()(batch)["class"] == 1).all()
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(UsageError, match="probability"):
            ClassCondition(NAMES, drop=wrong)


def test_words_name_a_condition_or_are_refused_with_what_there_is() -> None:
    classes = ClassCondition(("cat", "dog", "5"))
    assert [classes.parse(words).item() for words in ("dog", "0", "5")] == [1, 0, 2]  # a name before a number
    for wrong, says in (("7", "0 to 2"), ("-1", "0 to 2"), ("dgo", "dog")):
        with pytest.raises(UsageError) as caught:
            classes.parse(wrong)
        assert says in str(caught.value)
    for wrong in ("1 2", "one two three", ""):
        with pytest.raises(UsageError, match="3 finite numbers"):
            VectorCondition((3,)).parse(wrong)


def test_conditions_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("b\n\na\n", encoding="utf8")
    found = read_conditions(ClassCondition(NAMES), (), tmp_path / "c.txt", 5)
    assert found is not None
    assert found["class"].flatten().tolist() == [1, 0, 1, 0, 1]
    np.save(tmp_path / "c.npy", np.arange(6, dtype=np.float64).reshape(2, 3))
    found = read_conditions(VectorCondition((3,)), (), tmp_path / "c.npy", 2)
    assert found is not None
    assert found["vector"].tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(UsageError, match="do not fit"):
        read_conditions(VectorCondition((4,)), (), tmp_path / "c.npy", 2)
    with pytest.raises(UsageError, match="cannot be read"):
        read_conditions(VectorCondition((4,)), (), tmp_path / "none.txt", 2)
    (tmp_path / "empty.txt").write_text("\n", encoding="utf8")
    with pytest.raises(UsageError, match="no condition"):
        read_conditions(ClassCondition(NAMES), (), tmp_path / "empty.txt", 2)
    with pytest.raises(UsageError, match="unconditional"):
        read_conditions(None, ["a"], None, 2)
    with pytest.raises(UsageError, match="either as text or in a file"):
        read_conditions(ClassCondition(NAMES), ["a"], tmp_path / "c.txt", 2)


@pytest.mark.parametrize(("quadrants", "seen"), [(1, 0.25), (2, 0.5), (3, 0.75)])
def test_the_observed_part_of_a_picture(quadrants: int, seen: float) -> None:
    mask = observed_part(quadrants, 6, 8)
    assert mask.double().mean().item() == seen
    assert mask[-1, 0]
    assert not mask[-1 if quadrants > 1 else 0, -1]
    x = torch.rand(3, 2, 6, 8)
    c = PartCondition((2, 6, 8), quadrants).seen(x).view(3, 2, 6, 8)
    assert torch.equal(c[:, :, mask], x[:, :, mask])
    assert c[:, :, ~mask].isnan().all()
    with pytest.raises(UsageError, match="1, 2 or 3"):
        observed_part(4, 6, 8)


def test_a_label_outside_the_classes_is_refused() -> None:
    embedding = ClassEmbedding(3, 2)
    for wrong in (3, -2):
        with pytest.raises(UsageError, match="out of range"):
            embedding(torch.tensor([[0], [wrong]]))
    with pytest.raises(DataError, match="has none"):
        ClassCondition(NAMES)(batch_of(torch.zeros(2, 1)))
    with pytest.raises(DataError, match="of that shape"):
        VectorCondition((3,))(batch_of(torch.zeros(2, 1), None, torch.zeros(2, 4)))


def test_the_features_of_a_text_do_not_depend_on_its_padding_and_do_on_its_order() -> None:
    embedding = TokenEmbedding(10, 4, 6)
    one, other = embedding(torch.tensor([[1, 2, -1, -1], [2, 1, -1, -1]]))
    assert not torch.allclose(one, other)
    none = embedding(torch.full((2, 4), -1))
    assert torch.equal(none, embedding.none.expand(2, -1))


def conditional(**options: Any) -> tuple[LatentVariableModel, Data]:
    found = data()
    return CVAE(latent_dim=2, hidden=(8,), condition_dim=4, **options).build(found.spec), found


@pytest.mark.parametrize("prior", ["conditional", "normal", "mixture", "coupling"])
@pytest.mark.parametrize("network", ["mlp", "convolutional"])
def test_every_part_is_given_the_condition(prior: str, network: str) -> None:
    model, found = conditional(prior=prior, network=network, channels=(4,))
    batch = found.test.batch(torch.arange(4))
    px, other = model(model.conditions(batch)), model(Given({"class": (batch.labels.unsqueeze(-1) + 1) % 3}))  # pyright: ignore
    x, z = batch.x, torch.zeros(4, 2)
    assert not torch.equal(px.posterior(x).mean, other.posterior(x).mean)
    assert not torch.equal(px.likelihood(z).mean, other.likelihood(z).mean)
    depends = not torch.equal(px.prior().log_prob(z + 1), other.prior().log_prob(z + 1))
    assert depends == (prior == "conditional")
    terms = px.terms(x, k=3)
    assert terms.log_weights.shape == (3, 4)
    assert px.sample((2,)).shape == (2, 4, 1, 6, 6)
    terms.log_weights.sum().backward()
    embeddings = [p for name, p in model.named_parameters() if "table" in name]
    assert len(embeddings) == (3 if prior == "conditional" else 2)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in embeddings)


def test_a_conditional_model_without_a_condition_says_so() -> None:
    model, found = conditional()
    with pytest.raises(ObjectiveError, match="needs a condition"):
        model().terms(found.test.batch(torch.arange(2)).x)


def test_a_learned_prior_of_the_class_tells_the_classes_apart() -> None:
    """With the decoder fixed to z, the best prior has each class's own mean: a closed form."""
    model, _ = conditional()
    prior: Any = model.prior
    z, labels = torch.randn(600, 2) + torch.tensor([[3.0, 0.0]]), torch.arange(600) % 3
    z[labels == 2] -= 6
    optimizer = torch.optim.Adam(prior.parameters(), 0.02)
    for _ in range(300):
        loss = -prior(Given({"class": labels.unsqueeze(-1)})).log_prob(z).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = prior(Given({"class": torch.tensor([[0], [2]])})).mean
    torch.testing.assert_close(found[0], z[labels == 0].mean(0), rtol=0, atol=0.1)
    torch.testing.assert_close(found[1], z[labels == 2].mean(0), rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("spec", "condition", "says"),
    [
        (DataSpec("x", (1, 6, 6), 6), "auto", "has none"),
        (DataSpec("x", (1, 6, 6), 6, classes=NAMES), "vector", "class"),
        (DataSpec("x", (1, 6, 6), 6, condition_shape=(3,)), "image", "vector"),
    ],
)
def test_a_condition_that_the_data_has_not_is_refused(spec: DataSpec, condition: Any, says: str) -> None:
    with pytest.raises(UsageError, match="does not have that condition") as caught:
        CVAE(condition=condition).build(spec)
    assert says in str(caught.value)


def test_numbers_beside_the_examples_are_read_divided_and_given(tmp_path: Path) -> None:
    images = np.zeros((40, 6, 6), np.uint8)
    vectors = np.arange(80, dtype=np.float64).reshape(40, 2)
    vectors[3, 1] = np.nan
    np.savez(tmp_path / "d.npz", x=images, c=vectors)
    from tightbound import load_data

    found = load_data(str(tmp_path / "d.npz"))
    assert found.spec.condition_shape == (2,)
    test = found.test.batch(torch.arange(len(found.test)))
    rows = {tuple(row) for row in np.nan_to_num(vectors).tolist()}
    assert test.conditions is not None
    assert all(tuple(row) in rows for row in test.conditions.nan_to_num().tolist())
    model = CVAE(latent_dim=2, hidden=(8,)).build(found.spec)
    assert model(model.conditions(test)).terms(test.x).log_likelihood.isfinite().all()
    np.savez(tmp_path / "bad.npz", x=images, c=vectors[:7])
    with pytest.raises(DataError, match="do not match"):
        load_data(str(tmp_path / "bad.npz"))


def test_unconditional_models_are_given_nothing() -> None:
    found = data()
    model = VAE(latent_dim=2, hidden=(8,)).build(found.spec)
    assert model.conditions(found.test.batch(torch.arange(2))) is None
    assert model(model.conditions(found.test.batch(torch.arange(2)))).c is None


def test_every_condition_is_one() -> None:
    assert all(isinstance(condition, Condition) for condition, _ in CONDITIONS.values())


def test_a_picture_is_a_condition_where_the_model_is_given_one(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = torch.from_numpy(pixels / np.float32(255)).flatten()
    found = read_conditions(VectorCondition((1, 4, 6)), (), tmp_path / "a.png", 2)
    assert found is not None
    torch.testing.assert_close(found["image"], expected.expand(2, -1))
    np.save(tmp_path / "a.npy", pixels[None])
    again = read_conditions(VectorCondition((1, 4, 6)), (), tmp_path / "a.npy", 1)
    assert again is not None
    torch.testing.assert_close(again["image"], found["image"][:1])
    part = PartCondition((1, 4, 6), quadrants=1)
    seen = read_conditions(part, (), tmp_path / "a.png", 1)
    assert seen is not None
    torch.testing.assert_close(seen["part"], part.seen(expected.view(1, 1, 4, 6)), equal_nan=True)
    color = read_conditions(VectorCondition((3, 4, 6)), (), tmp_path / "a.png", 1)
    assert color is not None
    torch.testing.assert_close(color["image"].view(3, -1), expected.expand(3, -1))
    with pytest.raises(UsageError, match="does not have the size"):
        read_conditions(VectorCondition((1, 6, 4)), (), tmp_path / "a.png", 1)
    with pytest.raises(UsageError, match="not an image"):
        read_conditions(ClassCondition(NAMES), (), tmp_path / "a.png", 1)
    (tmp_path / "b.png").write_bytes(b"not an image")
    with pytest.raises(UsageError, match="cannot be read"):
        read_conditions(VectorCondition((1, 4, 6)), (), tmp_path / "b.png", 1)


def test_no_condition_can_be_asked_for_where_it_was_learned(tmp_path: Path) -> None:
    for condition in (ClassCondition(NAMES, drop=0.1), VectorCondition((3,), drop=0.1)):
        found = read_conditions(condition, ["none"], None, 2)
        assert found is not None
        assert all(found.is_missing(name).all() for name in found)
    own = read_conditions(ClassCondition(("some", "none")), ["none"], None, 1)
    assert own is not None
    assert own["class"].tolist() == [[1]]
    np.save(tmp_path / "none.npy", np.array([[1], [-1]]))
    for words, path in ((["none"], None), ((), tmp_path / "none.npy")):
        with pytest.raises(UsageError, match="was never trained without"):
            read_conditions(ClassCondition(NAMES), words, path, 2)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.zeros((0, 1), int), "holds no condition"),
        (np.array([[1.5]]), "do not fit"),
        (np.array([[9]]), "out of range"),
        (np.array([["a"]]), "do not fit"),
        (np.array([[np.inf]]), "do not fit"),
        (np.array(3.5), "do not fit"),
    ],
    ids=str,
)
def test_arrays_of_no_classes_are_refused(values: np.ndarray, says: str, tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", values)
    with pytest.raises(UsageError, match=says):
        read_conditions(ClassCondition(NAMES), (), tmp_path / "c.npy", 2)


def test_whole_floats_are_classes_and_infinite_numbers_no_vectors(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", np.array([[1.0], [0.0]]))
    found = read_conditions(ClassCondition(NAMES), (), tmp_path / "c.npy", None)
    assert found is not None
    assert found["class"].tolist() == [[1], [0]]
    with pytest.raises(UsageError, match="3 finite numbers"):
        VectorCondition((3,)).parse("inf 1 1")


@pytest.mark.parametrize(
    ("shape", "dtype", "becomes"),
    [((5,), np.float32, (1,)), ((5, 4, 6), np.uint8, (1, 4, 6)), ((5, 3), np.uint8, (3,)), ((5, 2), np.int64, (2,))],
)
def test_numbers_beside_examples_take_the_shape_and_scale_of_a_condition(
    shape: tuple[int, ...], dtype: Any, becomes: tuple[int, ...]
) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    found = as_conditions(values, 5, "train")
    assert found.shape == (5, *becomes)
    scale = 255 if dtype == np.uint8 else 1
    np.testing.assert_allclose(found.reshape(shape) * scale, values.astype(np.float32), rtol=1e-6)


def test_a_class_without_an_example_is_told_and_not_sampled(tmp_path: Path) -> None:
    """As class 0 where labels count from 1."""
    loaded = Data.from_arrays(data().train.values[:, 0], labels=1 + np.arange(len(data().train)) % 2, levels=6)
    assert (loaded.spec.classes, loaded.spec.absent) == (("0", "1", "2"), (0,))
    assert "Classes without training examples: 0." in loaded.notes
    model = CVAE(latent_dim=2).build(loaded.spec)
    shown = conditions_to_show(model, loaded.test, 5)
    assert shown is not None
    assert shown["class"].flatten().tolist() == [1, 2, 1, 2, 1]
    np.save(tmp_path / "c.npy", np.array([[2], [0]]))
    for words, path in ((["0"], None), ((), tmp_path / "c.npy")):
        with pytest.raises(UsageError, match="without examples of that class") as caught:
            read_conditions(model.condition, words, path, None)
        assert (caught.value.got, caught.value.expected) == ("0", "one of: 1, 2")
    assert data().spec.absent == ()


def test_a_class_beyond_the_last_finds_no_row_on_any_device() -> None:
    """Where the classes cannot be looked at in time, the table's own check stops what is outside them."""
    embedding = ClassEmbedding(3, 2)
    assert embedding.row_of(torch.tensor([-1, 0, 2])).tolist() == [3, 0, 2]
    assert (embedding.row_of(torch.tensor([3, 4, 9])) >= embedding.table.num_embeddings).all()
