"""pythae 0.1.2, as its user calls it; runs in an environment of its own, without tightbound."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
from typing import Any

os.environ["TQDM_DISABLE"] = "1"

import torch
from common import BATCH, LATENT, LEARNING_RATE, SHAPE, StepClock, measure_nll, networks, options, report, synthetic
from torch import Tensor, nn

with contextlib.redirect_stdout(io.StringIO()):
    from pythae.data.datasets import BaseDataset  # pyright: ignore[reportMissingImports]
    from pythae.models import VAE, VAEConfig  # pyright: ignore[reportMissingImports]
    from pythae.models.nn.benchmarks.mnist import (  # pyright: ignore[reportMissingImports]
        Decoder_Conv_AE_MNIST,
        Encoder_Conv_VAE_MNIST,
    )
    from pythae.trainers import BaseTrainer, BaseTrainerConfig  # pyright: ignore[reportMissingImports]


def build(given: argparse.Namespace) -> nn.Module:
    config = VAEConfig(input_dim=SHAPE, latent_dim=LATENT, reconstruction_loss="bce")
    if given.network == "mlp":
        model = VAE(config)
    else:
        model = VAE(config, Encoder_Conv_VAE_MNIST(config), Decoder_Conv_AE_MNIST(config))
    if given.weights is not None:
        load(model, torch.load(given.weights, weights_only=True))
    return model


def neutral(model: Any, kind: str) -> dict[str, Tensor]:
    """pythae's state by our names: same order, its two heads as one, log variances halved."""
    *body, mean, mean_bias, log_var, log_var_bias = model.encoder.state_dict().values()
    heads = [torch.cat([mean, log_var / 2]), torch.cat([mean_bias, log_var_bias / 2])]
    values = [*body, *heads, *model.decoder.state_dict().values()]
    return dict(zip(networks(kind).state_dict(), values, strict=True))


def load(model: Any, state: dict[str, Tensor]) -> None:
    """The inverse of :func:`neutral`."""
    *body, heads, biases = (value for name, value in state.items() if name.startswith("encoder."))
    (mean, log_std), (mean_bias, log_std_bias) = heads.chunk(2), biases.chunk(2)
    values = [*body, mean, mean_bias, 2 * log_std, 2 * log_std_bias]
    model.encoder.load_state_dict(dict(zip(model.encoder.state_dict(), values, strict=True)))
    values = [value for name, value in state.items() if name.startswith("decoder.")]
    model.decoder.load_state_dict(dict(zip(model.decoder.state_dict(), values, strict=True)))


def train(model: nn.Module, given: argparse.Namespace) -> dict[str, Any]:
    x = synthetic(given.examples).float()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        config = BaseTrainerConfig(
            output_dir=folder, num_epochs=given.epochs, learning_rate=LEARNING_RATE, optimizer_cls="Adam",
            per_device_train_batch_size=BATCH, train_dataloader_num_workers=given.workers, no_cuda=True,
        )  # fmt: skip
        clock = StepClock()
        BaseTrainer(model, BaseDataset(x, torch.zeros(len(x))), None, config).train()
        return clock.result(given.examples)


def parity(model: nn.Module) -> dict[str, Any]:
    torch.manual_seed(1)
    with torch.no_grad():
        return {"loss": model({"data": synthetic(BATCH).float()}).loss.item()}


def nll(model: Any, x: Tensor, k: int, given: argparse.Namespace) -> float:
    """Its ``get_nll`` returns the mean of log p(x), so the sign is turned."""
    with torch.no_grad() if given.no_grad else contextlib.nullcontext():
        return -float(model.get_nll(x, n_samples=k, batch_size=given.chunk))


def main() -> None:
    given = options()
    torch.manual_seed(0)
    model = build(given)
    if given.task == "export":
        torch.save(neutral(model, given.network), given.save)
        report({})
    elif given.task == "train":
        report(train(model, given))
    elif given.task == "parity":
        report(parity(model))
    else:
        model.eval()
        report(measure_nll(lambda x, k: nll(model, x, k, given), given))


if __name__ == "__main__":
    main()
