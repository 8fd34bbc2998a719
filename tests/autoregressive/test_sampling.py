"""How an autoregressive network chooses, held against the probabilities that it says it chooses by."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tightbound.distributions.sampling import Sampling, tempered

LOGITS = torch.tensor([0.3, -1.0, 2.0, 0.0, 1.2])
N = 40_000


def shares(sampling: Sampling, logits: Tensor = LOGITS) -> Tensor:
    return sampling.choose(logits.expand(N, -1)).bincount(minlength=len(logits)) / N


@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("top_k", [None, 1, 3, 5, 9])
@pytest.mark.parametrize("top_p", [None, 0.5, 0.9, 1.0])
def test_choices_have_the_probabilities_of_what_is_left(
    temperature: float, top_k: int | None, top_p: float | None
) -> None:
    p = (LOGITS.double() / temperature).softmax(-1)
    order = p.argsort(descending=True)
    kept = torch.zeros(5, dtype=torch.bool).index_fill(0, order[:top_k], True)
    among = torch.where(kept, p, 0) / p[kept].sum()
    before = torch.tensor([among[order[:i]].sum() for i in range(5)])
    kept[order[before >= (top_p or 2.0)]] = False
    expected = torch.where(kept, p, 0) / p[kept].sum()
    error = (expected * (1 - expected) / N).sqrt()
    assert ((shares(Sampling(temperature, top_k, top_p)) - expected).abs() <= 5 * error + 1e-9).all()


@pytest.mark.parametrize("temperature", [1e-3, 1e-20, 1e-40, 1e-300, 0.0])
def test_however_cold_the_most_probable_is_chosen(temperature: float) -> None:
    logits = torch.tensor([[-1e6, 3.0, 2.0], [1e6, -3.0, 0.0], [0.0, 0.0, 1e-2]])
    assert Sampling(temperature).choose(logits).tolist() == [1, 0, 2]
    assert tempered(logits, temperature).isnan().sum() == 0


def test_of_equals_as_many_are_left_as_were_asked_for() -> None:
    equal = torch.zeros(6)
    assert shares(Sampling(top_k=1), equal).count_nonzero() == 1
    assert shares(Sampling(top_k=4), equal).count_nonzero() == 4
    assert shares(Sampling(top_p=0.5), equal).count_nonzero() == 3


def test_the_plain_draw_costs_no_order() -> None:
    """What every step of a cached draw does by default sorts nothing: it is one softmax and one draw."""
    torch.manual_seed(3)
    chosen = Sampling().choose(LOGITS.expand(50, -1))
    torch.manual_seed(3)
    assert torch.equal(chosen, torch.multinomial(LOGITS.expand(50, -1).softmax(-1), 1).squeeze(-1))
