r"""Retrieval with an encoder of images and captions: the image for a caption, the caption for an image.

Convention: images are ``(n, channels, height, width)`` as a model sees them, captions tokens ``(n, length)`` with -1
after their end.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...encoders.contrastive import TextImageEncoder
from ...errors import ShapeError, UsageError
from ...runtime.modes import evaluating
from ..estimate import Estimate

__all__ = ["best_of", "fits", "rank", "retrieval_accuracy"]

AT_ONCE = 256
"""Images or captions that are worked on at once."""
TIE = 1e-6
"""Cosines that differ by no more are equal: what float32 leaves of them."""


@torch.no_grad()
def _features(encode: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    return torch.cat([encode(part) for part in inputs.split(AT_ONCE)])


def fits(encoder: TextImageEncoder, samples: Tensor, tokens: Tensor) -> Tensor:
    """How well several samples for each caption fit it: cosines, ``(k, n)``.

    Args:
        encoder: What compares images and captions.
        samples: k samples for each of n captions, ``(k, n, *shape)``.
        tokens: The captions, ``(n, length)``.

    Raises:
        ShapeError: If there are not as many captions as samples.

    Example:
        >>> from tightbound.encoders.contrastive import Contrastive, ContrastiveConfig
        >>> model = Contrastive(ContrastiveConfig((3, 8, 8), dim=4, channels=(4,)))
        >>> model.text.initialise_captions(["a red circle", "a blue square"])
        >>> fits(model, torch.rand(5, 2, 3, 8, 8), model.tokens(["a red circle", "a blue square"])).shape
        torch.Size([5, 2])
    """
    if samples.dim() != 5 or len(tokens) != samples.shape[1]:
        got = f"samples {tuple(samples.shape)}, captions {tuple(tokens.shape)}"
        raise ShapeError("Each caption has samples of its own.", got=got, expected="(k, n, *shape) and (n, length)")
    with evaluating(encoder):
        images = _features(encoder.image_features, samples.flatten(0, 1)).unflatten(0, samples.shape[:2])
        return (images * _features(encoder.text_features, tokens)).sum(-1)


def rank(encoder: TextImageEncoder, samples: Tensor, tokens: Tensor) -> Tensor:
    """The order of several samples for each caption, the one that fits best first; arguments as of :func:`fits`.

    Returns:
        Numbers of the samples, int64 ``(k, n)``.

    Example:
        >>> from tightbound.encoders.contrastive import Contrastive, ContrastiveConfig
        >>> model = Contrastive(ContrastiveConfig((3, 8, 8), dim=4, channels=(4,)))
        >>> model.text.initialise_captions(["a red circle", "a blue square"])
        >>> tokens = model.tokens(["a red circle", "a blue square"])
        >>> rank(model, torch.rand(5, 2, 3, 8, 8), tokens).sort(0).values[:, 0]
        tensor([0, 1, 2, 3, 4])
    """
    return fits(encoder, samples, tokens).sort(dim=0, descending=True, stable=True).indices


def best_of(encoder: TextImageEncoder, samples: Tensor, tokens: Tensor) -> Tensor:
    """Of several samples for each caption the one that fits best, ``(n, *shape)``; arguments as of :func:`rank`.

    Example:
        >>> from tightbound.encoders.contrastive import Contrastive, ContrastiveConfig
        >>> model = Contrastive(ContrastiveConfig((3, 8, 8), dim=4, channels=(4,)))
        >>> model.text.initialise_captions(["a red circle", "a blue square"])
        >>> best_of(model, torch.rand(5, 2, 3, 8, 8), model.tokens(["a red circle", "a blue square"])).shape
        torch.Size([2, 3, 8, 8])
    """
    return samples[rank(encoder, samples, tokens)[0], torch.arange(samples.shape[1])]


def retrieval_accuracy(
    encoder: TextImageEncoder, images: Tensor, tokens: Tensor, among: int = 100, pool: Tensor | None = None
) -> Estimate:
    r"""Share of images whose own caption fits better than all others among some drawn at random; chance: 1 / among.

    It is the expectation over all draws: of R other captions b fit an image as well as its own or better, so that

    .. math:: P(\text{own first among } a) = \binom{R - b}{a - 1} \Big/ \binom{R}{a - 1} .

    Args:
        encoder: What compares images and captions.
        images: ``(n, *shape)``.
        tokens: The caption of each, ``(n, length)``.
        among: a, its own among them.
        pool: Captions ``(m, length)`` from which the others are drawn; None for those of the images.

    Raises:
        ShapeError: If there are not as many images as captions.
        UsageError: If there are fewer captions.

    Example:
        >>> from tightbound.encoders.contrastive import Contrastive, ContrastiveConfig
        >>> model = Contrastive(ContrastiveConfig((3, 8, 8), dim=4, channels=(4,)))
        >>> model.text.initialise_captions(["a red circle", "a blue square"])
        >>> tokens = model.tokens(["a red circle", "a blue square"])
        >>> 0 <= retrieval_accuracy(model, torch.rand(2, 3, 8, 8), tokens, among=2).value <= 1
        True
    """
    if len(images) != len(tokens):
        raise ShapeError("Each image has a caption.", got=f"{len(images)} and {len(tokens)}", expected="as many")
    captions, ids = torch.cat([tokens, tokens if pool is None else pool]).unique(dim=0, return_inverse=True)
    own, drawn = ids[: len(tokens)], ids[len(tokens) :].unique()
    others = drawn != own.unsqueeze(1)
    rivals = others.sum(1).double()
    if among < 2 or len(rivals) == 0 or rivals.min() < among - 1:
        got = f"{among} of {len(drawn)} different captions"
        raise UsageError("Too few captions for retrieval.", got=got)
    with evaluating(encoder):
        u, v = _features(encoder.image_features, images), _features(encoder.text_features, captions)
    cosines = u.double() @ v.double().T
    better = ((cosines[:, drawn] > cosines.gather(1, own.unsqueeze(1)) - TIE) & others).sum(1).double()
    return Estimate.of((_log_choices(rivals - better, among - 1) - _log_choices(rivals, among - 1)).exp())


def _log_choices(n: Tensor, k: int) -> Tensor:
    """Logarithm of the number of ways to choose k of n, times k!; minus infinity if there are none."""
    left = (n - k).clamp(min=0)
    return torch.where(n < k, -math.inf, (n + 1).lgamma() - (left + 1).lgamma())
