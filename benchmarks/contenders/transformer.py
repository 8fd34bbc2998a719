"""Cached sampling of grids of codes: ours in turn with Hugging Face's ``generate`` and static cache, same weights.

Needs ``transformers`` beside torch and tightbound. Both draw all codes of a grid from one start token, with the same
GPT-2: what differs is the code round it. Before any clock runs, the logits of both must agree.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from common import in_turn, report
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel  # pyright: ignore[reportMissingImports]
from transformers.utils import logging  # pyright: ignore[reportMissingImports]

from tightbound.autoregressive.sampling import Sampling
from tightbound.autoregressive.transformer import CachedTransformer, Transformer

LAYERS = {
    "norm1": "ln_1",
    "split": "attn.c_attn",
    "join": "attn.c_proj",
    "norm2": "ln_2",
    "up": "mlp.c_fc",
    "down": "mlp.c_proj",
}
"""The layers of our block, and GPT-2's names for them."""


def ours(given: argparse.Namespace) -> Transformer:
    """A transformer with weights large enough for no path to vanish, and no bias at its head, as GPT-2 has none."""
    network = Transformer(given.levels + 1, given.shape, given.width, given.layers, given.heads).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
        network.head.bias.zero_()
    return network


def theirs(network: Transformer) -> GPT2LMHeadModel:
    """The same as a GPT-2, whose last code is the start token: learned places in a line, weights transposed."""
    config = GPT2Config(
        vocab_size=network.levels, n_positions=network.length, n_embd=network.width, n_layer=len(network.blocks),
        n_head=network.heads, activation_function="gelu", tie_word_embeddings=False, bos_token_id=network.levels - 1,
        eos_token_id=None, pad_token_id=network.levels - 1,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    body = model.transformer
    with torch.no_grad():
        body.wte.weight.copy_(network.codes.weight)
        body.wpe.weight.copy_(torch.cat([(network.start - network.codes.weight[-1])[None], network.places()[:-1]]))
        for mine, block in zip(network.blocks, body.h, strict=True):
            for name, place in LAYERS.items():
                copy(mine.get_submodule(name), block.get_submodule(place))
        copy(network.norm, body.ln_f)
        model.lm_head.weight.copy_(network.head.weight)
    return model


def copy(source: Any, target: Any) -> None:
    """Weights and biases; a GPT-2 layer is a transposed linear layer."""
    target.weight.copy_(source.weight.T if source.weight.dim() == 2 else source.weight)
    target.bias.copy_(source.bias)


@torch.no_grad()
def parity(network: Transformer, model: GPT2LMHeadModel, n: int) -> float:
    """How far our cached logits are from GPT-2's of one pass, at every place of n random grids."""
    codes = torch.randint(network.levels - 1, (n, network.length))
    cached = CachedTransformer(network, n)
    ours = torch.stack([cached.first, *map(cached.step, codes[:, :-1].unbind(1))], dim=1)
    tokens = torch.cat([start(network, n), codes[:, :-1]], dim=1)
    return (ours - model(tokens).logits).abs().max().item()


def start(network: Transformer, n: int) -> Tensor:
    return torch.full((n, 1), network.levels - 1)


def generators(network: Transformer, model: GPT2LMHeadModel, n: int, sample: bool) -> dict[str, Callable[[], Tensor]]:
    sampling, tokens = Sampling(temperature=float(sample)), start(network, n)
    options: dict[str, Any] = {
        "attention_mask": torch.ones_like(tokens), "max_new_tokens": network.length, "do_sample": sample,
        "cache_implementation": "static",
    }  # fmt: skip
    options |= {"top_k": 0, "top_p": 1.0, "temperature": 1.0} if sample else {}
    return {
        "ours": lambda: network.generate(n, sampling=sampling).flatten(1),
        "transformers": lambda: model.generate(tokens, **options)[:, 1:],
    }


def draw(network: Transformer, model: GPT2LMHeadModel, given: argparse.Namespace) -> dict[str, Any]:
    runs = generators(network, model, given.n, given.sample)
    first, second = (run() for run in runs.values())
    times, drawn = in_turn(runs, given.turns, warm_up=0), given.n * network.length
    rates = {name: [drawn / seconds for seconds in taken] for name, taken in times.items()}
    return {"codes_per_second": rates, "same_codes": (first == second).float().mean().item()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("draw",))
    parser.add_argument("--levels", type=int, default=512)
    parser.add_argument("--shape", type=int, nargs="+", default=(16, 16))
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("-n", type=int, default=16, help="grids at once")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sample", action="store_true", help="draw at temperature 1; else the most probable")
    given = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    network = ours(given)
    model = theirs(network)
    apart = parity(network, model, given.n)
    if not apart <= 1e-4:
        raise SystemExit(f"The contenders do not compute the same logits: they are {apart} apart.")
    report({"largest_difference": apart, **draw(network, model, given)})


if __name__ == "__main__":
    main()
