"""What a model is given: several named conditions act as one, whatever their types, and say where they do not fit."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tightbound.conditions import (
    ClassCondition,
    Condition,
    Conditions,
    Given,
    NamedCondition,
    TextCondition,
    VectorCondition,
)
from tightbound.data import Batch
from tightbound.distributions import Embeddings, Unconditional, embedded
from tightbound.errors import ObjectiveError, ShapeError, UnknownName, UsageError
from tightbound.networks import ClassEmbedding, Observed

BATCH = (4, 3)


def given() -> Given:
    """A class, a vector of which some numbers are missing, and a text, of the same 4 x 3 examples."""
    vector = torch.arange(24.0).view(*BATCH, 2)
    vector[0, 0] = math.nan
    vector[1, 0, 1] = math.nan
    text = torch.arange(60).view(*BATCH, 5)
    text[..., 3:] = -1
    return Given({"class": torch.arange(12).view(*BATCH, 1), "vector": vector, "text": text})


ALIKE: dict[str, tuple[Callable[[Given], Given], Callable[[Tensor], Tensor]]] = {
    "one": (lambda c: c[2], lambda entry: entry[2]),
    "one of each dimension": (lambda c: c[2, 1], lambda entry: entry[2, 1]),
    "a slice": (lambda c: c[1:3], lambda entry: entry[1:3]),
    "the second dimension": (lambda c: c[:, 1], lambda entry: entry[:, 1]),
    "some": (lambda c: c[torch.tensor([3, 0])], lambda entry: entry[torch.tensor([3, 0])]),
    "a list": (lambda c: c[[3, 0]], lambda entry: entry[[3, 0]]),
    "a mask": (lambda c: c[torch.eye(4, 3).bool()], lambda entry: entry[torch.eye(4, 3).bool()]),
    "a new dimension": (lambda c: c[None], lambda entry: entry[None]),
    "expanded": (lambda c: c.expand(5, *BATCH), lambda entry: entry.expand(5, *BATCH, entry.shape[-1])),
    "flat": (lambda c: c.flatten(), lambda entry: entry.reshape(12, -1)),
    "joined": (lambda c: Given.cat([c, c[:1]]), lambda entry: torch.cat([entry, entry[:1]])),
    "stacked": (lambda c: Given.stack([c, c], dim=1), lambda entry: torch.stack([entry, entry], dim=1)),
    "split": (lambda c: c.split(3)[1], lambda entry: entry.split(3)[1]),
    "moved": (lambda c: c.to("cpu", torch.float64), lambda entry: entry.to(_twice(entry.dtype))),
}


def _twice(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float32 else dtype


@pytest.mark.parametrize("name", ALIKE)
def test_what_is_done_to_a_given_is_done_to_every_entry(name: str) -> None:
    whole, each = ALIKE[name]
    c = given()
    changed = whole(c)
    assert list(changed) == ["class", "vector", "text"]
    for entry in c:
        expected = each(c[entry])
        assert changed[entry].dtype == expected.dtype
        torch.testing.assert_close(changed[entry], expected, equal_nan=True)
        assert changed.shape == expected.shape[:-1]
    assert c.shape == BATCH  # it never changes


def test_parts_of_a_batch_are_all_of_it() -> None:
    c = given()
    whole = Given.cat(c.split(3))
    assert all(torch.equal(whole[name].nan_to_num(), c[name].nan_to_num()) for name in c)
    assert [part.shape for part in c.split(3)] == [(3, 3), (1, 3)]


def test_what_is_missing_is_told_from_what_is_there() -> None:
    c = given()
    assert c.is_missing("vector").nonzero().tolist() == [[0, 0]]  # a number that is left is not nothing
    assert not c.is_missing("text").any()
    for gone in [(), ("vector",), ("class", "text")]:
        less = c.missing(*gone)
        for name in c:
            assert less[name].dtype == c[name].dtype
            if name in (gone or c):
                assert less.is_missing(name).all()
            else:
                assert less[name] is c[name]


def test_it_is_a_mapping_of_names() -> None:
    c = given()
    assert (len(c), "class" in c, 0 in c) == (3, True, False)
    assert dict(c)["text"] is c["text"]
    assert repr(c) == "Given(class: (4, 3, 1), vector: (4, 3, 2), text: (4, 3, 5))"
    assert c == c
    assert c != given()
    assert len({c, given()}) == 2


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        (lambda: Given({}), ShapeError, "at least one"),
        (lambda: Given({"a": torch.zeros(3, 1), "b": torch.zeros(2, 1)}), ShapeError, "same batch"),
        (lambda: Given({"a": torch.zeros(())}), ShapeError, "same batch"),
        (lambda: given().expand(5), ShapeError, "does not fit the batch"),
        (lambda: given()["clas"], UnknownName, "'class'"),
        (lambda: given().missing("class", "image"), UnknownName, "image"),
        (lambda: given().is_missing("image"), UnknownName, "image"),
        (lambda: given().only, UsageError, "several"),
        (lambda: Given.cat([given(), Given({"class": torch.zeros(4, 3, 1)})]), UsageError, "same names"),
        (lambda: Given.stack([]), UsageError, "same names"),
    ],
)
def test_what_does_not_fit_is_refused(wrong: Callable[[], object], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        wrong()


def test_an_index_reaches_the_batch_and_not_what_one_example_is_given() -> None:
    with pytest.raises(IndexError):
        given()[0, 0, 0]
    with pytest.raises(IndexError):
        given()[0, 0][0]


# -- features ---------------------------------------------------------------------------------------------------------


def two() -> tuple[Given, Embeddings]:
    torch.manual_seed(0)
    c = Given({"vector": torch.randn(5, 2), "class": torch.tensor([[0], [1], [2], [1], [-1]])})
    return c, Embeddings({"class": ClassEmbedding(3, 4), "vector": Observed(2, 4)})


def test_features_of_several_conditions_are_the_sum_of_those_of_each_by_its_name() -> None:
    c, embeddings = two()
    each = embeddings.each
    found = embedded(embeddings, c)
    assert found is not None
    torch.testing.assert_close(found, each["class"](c["class"]) + each["vector"](c["vector"]))
    more = Given({"other": torch.zeros(5, 9), **c})
    torch.testing.assert_close(embedded(embeddings, more), found)  # it is shown what it names
    nested = embedded(embeddings, more[None].expand(3, 5))
    assert nested is not None
    torch.testing.assert_close(nested, found.expand(3, 5, 4))


def test_each_condition_can_be_missing_by_itself() -> None:
    c, embeddings = two()
    whole, no_class, no_vector = (embeddings(each) for each in (c, c.missing("class"), c.missing("vector")))
    assert (whole != no_class)[:4].any(1).all()
    torch.testing.assert_close(whole[4], no_class[4])
    assert (whole != no_vector).any(1).all()
    torch.testing.assert_close(no_vector[1], no_vector[3])


def test_a_vector_is_added_to_each_of_those_in_a_row() -> None:
    rows = Embeddings({"class": ClassEmbedding(3, 4), "text": nn.Embedding(9, 4)})
    c = Given({"class": torch.tensor([[0], [2]]), "text": torch.tensor([[1, 2, 3], [4, 5, 6]])})
    expected = rows.each["class"](c["class"]).unsqueeze(1) + rows.each["text"](c["text"])
    torch.testing.assert_close(rows(c), expected)


def test_the_border_says_what_it_wants() -> None:
    c, embeddings = two()
    assert embedded(Unconditional(), c) is None
    assert embedded(None, None) is None
    vector = Given({"vector": c["vector"]})
    assert embedded(None, vector) is c["vector"]
    with pytest.raises(UsageError, match="several"):
        embedded(Observed(2, 4), c)
    with pytest.raises(UnknownName, match="class"):
        embedded(embeddings, vector)
    with pytest.raises(UsageError, match="a Given, such as"):
        embedded(embeddings, c["vector"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ObjectiveError, match="needs a condition"):
        embedded(embeddings, None)


# -- several conditions -----------------------------------------------------------------------------------------------


def several(drop: float = 0.0) -> Conditions:
    return Conditions(ClassCondition(("cat", "dog", "none"), drop, absent=(1,)), VectorCondition((2,), drop))


def batch_of(n: int) -> Batch:
    return Batch(torch.zeros(n, 1), torch.arange(n) % 3, None, torch.randn(n, 2))


def test_several_conditions_of_a_batch_have_their_names_and_are_dropped_each_by_itself() -> None:
    found = several(0.5)(batch_of(4000))
    assert list(found) == ["class", "vector"]
    gone = torch.stack([found.is_missing(name) for name in found])
    both = gone.all(0).double().mean().item()
    assert abs(both - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 4000)
    for share in gone.double().mean(1).tolist():
        assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(4000)
    still = several(0.5).eval()(batch_of(10))
    assert not any(still.is_missing(name).any() for name in still)


def test_several_conditions_are_read_by_their_names_and_what_is_left_out_is_missing() -> None:
    condition = several(0.1)
    c = condition.read("vector=0.5 1", "class=none")
    assert (c["class"].tolist(), c["vector"].tolist(), c.shape) == ([2], [0.5, 1.0], ())
    assert condition.describe(c) == "none, 0.5, 1"
    alone = condition.read("class=cat")
    assert alone.is_missing("vector")
    assert not alone.is_missing("class")
    assert condition.read("vector=none").is_missing("vector")
    assert condition.read("vector=0.5 1").is_missing("class")  # though a class is named "none"
    with pytest.raises(UsageError, match="given twice"):
        condition.read("class=cat", "class=none")
    for wrong in ("cat", "clas=cat", "=cat"):
        with pytest.raises(UsageError, match="does not name one of them") as caught:
            condition.read(wrong)
        assert caught.value.expected == "class=... vector=..."
    with pytest.raises(UsageError, match="finite numbers"):
        condition.read("vector=cat")


def test_one_condition_is_read_as_it_is_whatever_stands_in_it() -> None:
    text = TextCondition(vocabulary=300, length=20)
    text.initialise_captions(["a = b"])
    assert text.describe(text.read("a = b")) == "a = b"
    assert ClassCondition(("a=b", "c")).read("a=b")["class"].tolist() == [0]
    for wrong in ((), ("0.5", "1")):
        with pytest.raises(UsageError, match="one condition"):
            VectorCondition((2,)).read(*wrong)


def test_what_was_never_learned_of_one_of_several_is_refused_by_its_name() -> None:
    strict, free = several(), several(0.1)
    free.require_learned(free.read("vector=1 2")[None])
    with pytest.raises(UsageError, match="never trained without a condition") as caught:
        strict.require_learned(strict.read("class=cat")[None])
    assert caught.value.got == "no vector for 1 of 1 samples"
    with pytest.raises(UsageError, match="without examples of that class"):
        free.require_learned(free.read("class=dog")[None])


def test_what_several_conditions_say_of_themselves() -> None:
    classes, vector = ClassCondition(("a", "b"), 0.1), VectorCondition((2,))
    shown = classes.to_show()
    assert shown is not None
    assert shown["class"].tolist() == [[0], [1]]
    for condition, verbal, droppable in ((classes, True, True), (vector, False, False)):
        assert (condition.in_few_words, condition.droppable) == (verbal, droppable)
    both = Conditions(classes, vector)
    assert (both.in_few_words, both.droppable, both.to_complete, both.to_show()) == (False, False, False, None)
    assert isinstance(both, Condition)
    assert all(isinstance(part, NamedCondition) for part in both.parts.values())
    with pytest.raises(UsageError, match="same name"):
        Conditions(vector, VectorCondition((3,)))


def test_texts_among_several_conditions_are_saved_with_them() -> None:
    text = TextCondition(vocabulary=300, length=12)
    both = Conditions(text, ClassCondition(("a", "b")))
    text.initialise_captions(["a red circle", "a blue one"])
    again = Conditions(TextCondition(vocabulary=300, length=12), ClassCondition(("a", "b")))
    again.load_state_dict(both.state_dict())
    words = ("text=a red circle", "class=b")
    assert again.captions(again.read(*words)[None]) == ["a red circle"]
    assert torch.equal(again.read(*words)["text"], both.read(*words)["text"])
