"""Texts to tokens and back: nothing is lost, the most common pairs are joined, and a tokenizer stays with its model."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tightbound import checkpoint, load, train
from tightbound.cli.conditions import read_conditions
from tightbound.conditions import ClassCondition, TextCondition
from tightbound.conditions.tokenizer import Tokenizer, normalise
from tightbound.data import Batch, Data
from tightbound.errors import CheckpointError, DataError, UsageError
from tightbound.likelihoods import Bernoulli
from tightbound.models import LatentVariableModel
from tightbound.networks import MLP, TokenEmbedding
from tightbound.posteriors import DiagonalGaussian
from tightbound.priors import StandardNormal
from tightbound.training.ema import MovingAverage

CAPTIONS = [
    *("a red circle", "a red square", "a blue circle", "a blue square", "a green square in a green circle"),
    *("face with tears of joy", "face without mouth", "flag: Japan", "Flag: Côte d’Ivoire", "keycap #"),
]
ODD = [
    *("a", "日本語", "👩🏽‍🚀 astronaut", "naïve", "e\u0301", "İstanbul", "ẞ", "עברית", "a\tb\n c", "  a  ", "\x00\x7f"),
    *("##__  ..", "don't", "\u200d", "ﬁ", "Å", "x" * 60),
]


def tokenizer(vocabulary: int = 300, length: int = 100) -> Tokenizer:
    return Tokenizer.train(CAPTIONS, vocabulary, length)


@pytest.mark.parametrize("text", [*CAPTIONS, *ODD])
def test_nothing_is_lost_but_case_and_spaces(text: str) -> None:
    known = tokenizer()
    tokens = known.encode(text)
    assert tokens.shape == (100,)
    assert tokens.dtype == torch.int64
    assert known.decode(tokens) == normalise(text)
    assert normalise(normalise(text)) == normalise(text)
    assert torch.equal(known.encode(normalise(text)), tokens)
    assert 0 <= tokens[tokens != -1].min() <= tokens.max() < known.vocabulary
    assert (tokens[int((tokens >= 0).sum()) :] == -1).all()


def test_texts_that_look_the_same_have_the_same_tokens() -> None:
    known = tokenizer()
    for one, other in (("Red  CIRCLE ", "red circle"), ("cafe\u0301", "café"), ("a\u00a0b", "a b")):
        assert torch.equal(known.encode(one), known.encode(other))
    assert not torch.equal(known.encode("cafe"), known.encode("café"))


def test_each_join_is_of_the_most_common_neighbours() -> None:
    """Byte pairs by their definition, on the words with the space before them."""
    known = tokenizer(290)
    assert known.vocabulary == 290
    words = Counter(w for caption in CAPTIONS for w in re.findall(r" ?[a-z’ôé]+| ?[^\sa-z’ôé]+", normalise(caption)))
    cut = {word: list(word.encode()) for word in words if "’" not in word}
    counts = {word: count for word, count in words.items() if word in cut}
    for number, join in enumerate(known.joins, 256):
        pairs: Counter[tuple[int, int]] = Counter()
        for word, tokens in cut.items():
            for pair in pairwise(tokens):
                pairs[pair] += counts[word]
        assert pairs[join] == max(pairs.values()) >= 2
        for tokens in cut.values():
            i = 0
            while i < len(tokens) - 1:
                if (tokens[i], tokens[i + 1]) == join:
                    tokens[i : i + 2] = [number]
                i += 1
    assert Tokenizer(known.joins, 100).encode("a blue circle").tolist() == known.encode("a blue circle").tolist()


def test_common_words_become_short_and_the_same_captions_give_the_same_tokenizer() -> None:
    plain, known = Tokenizer(length=100), tokenizer()
    assert int((plain.encode("a red circle") >= 0).sum()) == len("a red circle")
    assert int((known.encode("a red circle") >= 0).sum()) == 3
    assert tokenizer().joins == known.joins
    assert Tokenizer.train([*CAPTIONS, *CAPTIONS], 300, 100).joins == known.joins
    assert Tokenizer.train(["a", "b"], 300).vocabulary == 256  # nothing to join


def test_kept_tokens_cannot_be_spoiled() -> None:
    known = tokenizer()
    first = known.encode("a red circle")
    first.fill_(7)
    assert known.decode(known.encode("a red circle")) == "a red circle"


def test_bad_captions_are_refused() -> None:
    known = Tokenizer(length=5)
    for empty in ("", "  \n"):
        with pytest.raises(DataError, match="empty"):
            known.encode(empty)
    assert known.decode(known.encode("zebra")) == "zebra"
    with pytest.raises(UsageError, match="too long") as caught:
        known.encode("zebras")
    assert caught.value.expected == "at most 5"
    assert "6 tokens: 'zebras'" in str(caught.value.got)
    assert "--caption-length 6" in str(caught.value.remedy)
    with pytest.raises(UsageError, match="too long") as caught:
        known.encode("zebra " * 100)
    assert str(caught.value.got).startswith("599 tokens: 'zebra zebra")
    assert len(str(caught.value.got)) < 100
    with pytest.raises(DataError, match="half a character"):
        known.encode("a\ud83d")
    for captions, options, says in (
        ([], {}, "there are none"),
        (["a", " "], {}, "empty.\n  got:      1 of 2"),
        (["a"], {"vocabulary": 255}, "vocabulary is too small"),
        (["a"], {"length": 0}, "text length is out of range"),
        (["a b c d"], {"length": 3}, "too long"),
    ):
        with pytest.raises((DataError, UsageError), match=says):
            Tokenizer.train(captions, **options)


def test_the_longest_caption_says_how_long_they_must_be() -> None:
    captions = ["b a", "a b c d", "c d", "d c b a", "one two three four"]
    with pytest.raises(UsageError, match="too long") as caught:
        Tokenizer.train(captions, 256, 4)
    assert "--caption-length 18" in str(caught.value.remedy)
    assert Tokenizer.train(captions, 256, 18).count("one two three four") == 18


def test_bad_tokens_are_refused_and_halves_of_characters_shown_as_such() -> None:
    known = tokenizer()
    for wrong in ([known.vocabulary], [-2], [97, -3]):
        with pytest.raises(UsageError, match="Unknown token"):
            known.decode(wrong)
    assert known.decode([97, -1, 98]) == "a"
    assert known.decode([97, 0xE2, 0x82]) == "a\ufffd"
    assert known.decode([]) == ""
    for wrong in ([(256, 97)], [(97, 98), (97, 257)], [(-1, 3)]):
        with pytest.raises(UsageError, match="two earlier tokens"):
            Tokenizer(wrong)


def test_its_json_is_that_of_the_tokenizers_library() -> None:
    import tokenizers

    known = tokenizer()
    theirs: Any = tokenizers.Tokenizer.from_str(known.json())
    for text in (normalise(text) for text in (*CAPTIONS, *ODD)):
        tokens = [token for token in known.encode(text).tolist() if token >= 0]
        assert theirs.encode(text).ids == tokens
        assert theirs.decode(tokens) == text
    again = Tokenizer.from_json(known.json(), length=100)
    assert again.joins == known.joins
    assert again.length == 100
    old = json.loads(known.json())  # before 2024 a join was written as two words
    old["model"]["merges"] = [" ".join(pair) for pair in old["model"]["merges"]]
    assert Tokenizer.from_json(json.dumps(old)).joins == known.joins


def test_a_tokenizer_that_lost_a_character_is_refused() -> None:
    told = json.loads(tokenizer().json())
    del told["model"]["vocab"]["z"], told["model"]["vocab"]["Ġ"]
    with pytest.raises(CheckpointError, match="lost a character") as caught:
        Tokenizer.from_json(json.dumps(told))
    assert "2 bytes: b' z'" in str(caught.value.got)
    damaged = tokenizer()
    damaged.pieces[ord("z")] = b"s"
    with pytest.raises(CheckpointError, match="lost a character") as caught:
        damaged.encode("zebra")
    assert (caught.value.got, caught.value.expected) == ("'sebra'", "'zebra'")


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "nonsense", '{"model": 3}', "[" * 100_000),
        '{"model": {"type": "WordPiece", "vocab": {"a": 0}, "merges": []}}',
        '{"model": {"type": "BPE", "vocab": 7, "merges": []}}',
        '{"model": {"type": "BPE", "vocab": {}, "merges": [["a"]]}}',
        '{"model": {"type": "BPE", "vocab": {}, "merges": [3]}}',
    ],
)
def test_what_is_no_tokenizer_is_refused(text: str) -> None:
    with pytest.raises(CheckpointError, match="Not a byte-pair tokenizer"):
        Tokenizer.from_json(text)


def test_a_join_of_unknown_words_is_refused() -> None:
    told = json.loads(tokenizer().json())
    told["model"]["merges"].insert(0, ["circle", "s"])
    with pytest.raises(CheckpointError, match="Not a byte-pair tokenizer") as caught:
        Tokenizer.from_json(json.dumps(told))
    assert "circle" in str(caught.value.got)


def test_two_joins_to_the_same_bytes_are_one_token() -> None:
    known = Tokenizer([(97, 98), (256, 99), (98, 99), (97, 258)], length=4)
    assert known.vocabulary == 256 + 3
    assert known.decode(known.encode("abc")) == "abc"
    assert Tokenizer.from_json(known.json(), 4).joins == known.joins


def test_without_the_library_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UsageError, match="tokenizers") as caught:
        Tokenizer(length=4).encode("a")
    assert "tightbound[text]" in str(caught.value.remedy)


def test_the_library_is_loaded_at_the_first_caption_only() -> None:
    code = """
import sys, tightbound.conditions.tokenizer, tightbound.conditions
condition = tightbound.conditions.TextCondition(300, 4)
tightbound.conditions.tokenizer.Tokenizer([(97, 98)]).decode([256])
print("tokenizers" in sys.modules)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "False"


def learned(drop: float = 0.0) -> TextCondition:
    condition = TextCondition(300, 40, drop)
    condition.initialise_captions(CAPTIONS)
    return condition


def batch(*captions: str) -> Batch:
    return Batch(torch.zeros(len(captions), 1), None, captions)


def test_a_caption_is_a_condition() -> None:
    condition = learned()
    given = condition(batch("a red circle", "Face with TEARS of joy"))
    c = given["text"]
    assert c.shape == (2, 40)
    assert c.dtype == torch.int64
    assert condition.captions(given) == ["a red circle", "face with tears of joy"]
    assert condition.describe(given.missing()[0]) == "no text"
    assert torch.equal(condition.read("A red circle")["text"], c[0])
    features = TokenEmbedding(condition.vocabulary, condition.size, 6)(torch.cat([c, given.missing()["text"]]))
    assert features.isfinite().all()
    assert torch.equal(features[2], features[3])
    assert condition(batch())["text"].shape == (0, 40)


def test_captions_are_dropped_whole_while_a_model_learns() -> None:
    c = learned(0.5)(batch(*["a red circle"] * 400))["text"]
    dropped = (c == -1).all(1)
    assert torch.equal(dropped, c[:, 0] == -1)
    assert abs(dropped.double().mean() - 0.5) < 4 * 0.5 / 20
    assert not learned(1.0).eval()(batch("a red circle")).is_missing("text").any()


def test_conditions_in_words_and_from_a_file(tmp_path: Path) -> None:
    condition = learned()
    (tmp_path / "c.txt").write_text("a red circle\nface with tears\n", encoding="utf8")
    found = read_conditions(condition, (), tmp_path / "c.txt", 3)
    assert found is not None
    assert condition.captions(found) == ["a red circle", "face with tears", "a red circle"]
    for wrong, says in ((" ", "empty"), ("word " * 40, "too long")):
        with pytest.raises(UsageError, match=says):
            read_conditions(condition, [wrong], None, 1)


def test_bad_use_says_what_to_do() -> None:
    with pytest.raises(DataError, match="has none") as caught:
        learned()(Batch(torch.zeros(2, 1), None))
    assert "metadata.jsonl" in str(caught.value.remedy)
    with pytest.raises(UsageError, match="not trained"):
        TextCondition()(batch("a"))
    wrong: list[tuple[Any, ...]] = [(255, 4), (300, 0), (300, 4, 1.5)]
    for options in wrong:
        with pytest.raises(UsageError):
            TextCondition(*options)


def test_the_tokenizer_is_saved_with_the_model(tmp_path: Path) -> None:
    condition, again = learned(), TextCondition(300, 40)
    checkpoint.write(tmp_path / "m.safetensors", checkpoint.tensors_of(condition))
    checkpoint.load_into(again, checkpoint.read(tmp_path / "m.safetensors"))
    for text in (*CAPTIONS, "something else"):
        assert torch.equal(again.parse(text), condition.parse(text))
    other = TextCondition(300, 40)
    other.initialise_captions(["zebra crossing", "zebra"])
    assert not torch.equal(other.parse("zebra"), condition.parse("zebra"))
    other.load_state_dict(condition.state_dict())  # what was learned before is forgotten
    assert torch.equal(other.parse("zebra"), condition.parse("zebra"))
    assert torch.equal(copy.deepcopy(condition).parse("a zebra"), condition.parse("a zebra"))


def test_averages_of_weights_leave_the_tokenizer_alone() -> None:
    model = nn.ModuleDict({"condition": learned(), "table": nn.Linear(2, 2)})
    average, before = MovingAverage(model, 0.9), model["condition"].joins.clone()  # pyright: ignore[reportCallIssue]
    average.update(0)
    with average.applied():
        assert torch.equal(model["condition"].joins, before)  # pyright: ignore[reportArgumentType]
    assert all(p.requires_grad for p in model.parameters())
    assert not list(model["condition"].parameters())


def captioned() -> LatentVariableModel:
    """A model of pictures given their captions, put together by hand."""
    q = DiagonalGaussian(MLP(16, 4, (8,), condition_dim=4), (1, 4, 4))
    px = Bernoulli(MLP(2, 16, (8,), condition_dim=4), (2,), (1, 4, 4))
    q.embedding, px.embedding = TokenEmbedding(300, 12, 4), TokenEmbedding(300, 12, 4)
    model = LatentVariableModel(StandardNormal(2), px, q)
    model.condition = TextCondition(300, 12, drop=0.2)
    return model


def test_a_run_folder_holds_the_tokenizer_of_its_model(tmp_path: Path) -> None:
    images = np.zeros((40, 4, 4), np.uint8)
    images[::2] = 1
    texts = ("a white square", "a black square") * 20
    captions = {"train": texts[:20], "valid": texts[20:30], "test": texts[30:]}
    data = Data.from_arrays(images[:20], images[30:], images[20:30], captions=captions, levels=2)
    model = captioned()
    model.condition.initialise_captions(texts[:20])  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
    train(model, data, out=tmp_path / "run", epochs=2, batch_size=10, ema=0.9)
    again: Any = load(tmp_path / "run", captioned())
    words = "a white cube"
    assert torch.equal(again.condition.parse(words), model.condition.parse(words))  # pyright: ignore
    assert again(again.condition.read(words).expand(3)).sample().shape == (3, 1, 4, 4)
    other = captioned()
    other.condition = TextCondition(290, 12)
    with pytest.raises(CheckpointError, match="joins"):
        load(tmp_path / "run", other)


def test_a_class_is_still_no_text() -> None:
    with pytest.raises(UsageError):
        ClassCondition(("a", "b")).parse("a red circle")
