r"""Rate and distortion: bits that a latent takes, against how far its decoding is from the image; and WebP beside it.

Convention: a rate is in bits per pixel, of height times width pixels whatever the channels,

.. math:: R = \frac{\mathbb{E}_{q(z \mid x)} \bigl[\log q(z \mid x) - \log p(z)\bigr]}{H W \ln 2},

which bits-back coding reaches on average; a distortion is that of the mean of p(x | z) at a draw of q(z | x).
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...conditions import Given
from ...data import DataSpec, Split
from ...errors import ObjectiveError, UsageError
from ...models import LatentVariableModel, Model
from ...models.latent import with_latents
from ...runtime.progress import progress
from ..estimate import Estimate
from ..passes import examples, over, require_split, terms_of_the_first
from .features import Features, as_images
from .quality import fidelity

__all__ = ["QUALITIES", "Point", "payload", "rate_and_distortion", "require_pixels", "webp"]

QUALITIES = (0, 5, 10, 20, 35, 50, 70, 90)
"""Qualities of WebP, as its encoder names them."""
FRAME_HEADER = 10
"""Bytes of a lossy frame before its compressed part: a tag, a start code, width and height."""


@dataclass(frozen=True)
class Point:
    """The rate of a code and the distortion of what it decodes to, over the images of a split.

    Args:
        rate: Bits per pixel.
        psnr: Peak signal-to-noise ratio, dB, mean over the images.
        ssim: Structural similarity.
        perceptual: Perceptual distance; None in features without places.

    Example:
        >>> Point(Estimate(0.5, 0.01), Estimate(30.0, 0.1), Estimate(0.9, 0.01), None).rate.value
        0.5
    """

    rate: Estimate
    psnr: Estimate
    ssim: Estimate
    perceptual: Estimate | None

    @classmethod
    def of(cls, values: dict[str, Tensor]) -> Point:
        """The means of numbers of each image, by the name of the field."""
        told = {name: Estimate.of(value) for name, value in values.items()}
        return cls(**{"perceptual": None, **told})


def require_pixels(spec: DataSpec) -> None:
    """Refuses data that is not images with values from black to white.

    Raises:
        UsageError: If it is not.
    """
    if not spec.image or spec.scale:
        raise UsageError(
            "Bits per pixel are of images.",
            got=f"examples of shape {spec.shape}{', standardised' if spec.scale else ''}",
            expected="(1 or 3, height, width), with levels",
        )


def rate_and_distortion(model: Model, split: Split, features: Features, *, seed: int = 0) -> Point:
    """The rate of a model's latents under its prior, and the distortion of their decodings.

    The rate is as good as the prior: of an autoencoder with a weak KL it means little before a prior is fitted. Of a
    prior with only a bound it is an upper bound.

    References:
        Fixing a Broken ELBO (Alemi et al., 2018).
        Practical Lossless Compression with Latent Variables Using Bits Back Coding (Townsend, Bird and Barber, 2019).

    Args:
        model: The model, on the device to compute on.
        split: The images.
        features: Where the perceptual distance is taken.
        seed: Of all noise.

    Raises:
        UsageError: If the split is empty or no images, or the model has no latent.
        ObjectiveError: If the model has no prior, or its posterior no density.

    Example:
        >>> import tightbound as tb
        >>> from tightbound.evaluation.samples.features import features_of
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.VAE(latent_dim=2).build(data.spec)
        >>> found = rate_and_distortion(model, data.test.subset(20), features_of(lambda x: x, data))
        >>> found.rate.value > 0, found.perceptual is None
        (True, True)
    """
    require_split(split, model)
    require_pixels(split.spec)
    model = with_latents(model)
    if not terms_of_the_first(model, split).bounded:
        raise ObjectiveError(
            "The latents of this model have no rate: it has no prior, or its posterior is a point of a continuum.",
            remedy="Fit a prior to codes, or train a model with a stochastic posterior, such as vae.",
        )
    per_pixel = 1 / (math.prod(split.spec.shape[1:]) * math.log(2))

    def found(model: LatentVariableModel, x: Tensor, c: Given | None) -> dict[str, Tensor]:
        px = model(c)
        terms = px.terms(x)
        z = (terms.packed or terms.latents[0]).z.squeeze(0)
        decoded = px.likelihood(z).mean
        seen = (features.see(x), features.see(decoded))
        return {"rate": terms.kl().double() * per_pixel} | fidelity(x, decoded, seen, split.spec)

    return Point.of(over(model, split, 1, found, seed=seed))


def webp(
    model: Model, split: Split, features: Features, qualities: Sequence[int] = QUALITIES, *, seed: int = 0
) -> dict[int, Point]:
    """Rate and distortion of WebP at several qualities, without headers, on the images as a model sees them.

    Images have 8 bits per channel. Of each file the bytes of the compressed frame are counted: see :func:`payload`.

    Args:
        model: The model, which says what the images are and where to compute.
        split: The images.
        features: Where the perceptual distance is taken.
        qualities: From 0 to 100.
        seed: Of binarisation.

    Raises:
        UsageError: If the split is empty or no images.

    Example:
        >>> import tightbound as tb
        >>> from tightbound.evaluation.samples.features import features_of
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.VAE(latent_dim=2).build(data.spec)
        >>> found = webp(model, data.test.subset(20), features_of(lambda x: x, data), (0, 90))
        >>> found[0].rate.value < found[90].rate.value, found[0].psnr.value < found[90].psnr.value
        (True, True)
    """
    require_split(split, model)
    require_pixels(split.spec)
    parts = torch.arange(len(split)).split(500)
    found: dict[int, list[dict[str, Tensor]]] = {quality: [] for quality in qualities}
    with torch.no_grad(), progress("WebP", len(split) * len(found)) as advance:
        for part in parts:
            x, _ = examples(model, split, part, seed)
            images, seen = as_images(x, split.spec), features.see(x)
            for quality, values in found.items():
                bits, decoded = _coded(images, quality)
                rate = {"rate": bits / math.prod(split.spec.shape[1:])}
                values.append(rate | fidelity(x, decoded.to(x), (seen, features.see(decoded.to(x))), split.spec))
                advance(len(part))
    return {
        quality: Point.of({name: torch.cat([value[name] for value in values]) for name in values[0]})
        for quality, values in found.items()
    }


def _coded(images: Tensor, quality: int) -> tuple[Tensor, Tensor]:
    """The bits of each image, ``(n,)``, and what they decode to."""
    levels = (images * 255).round().byte().expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
    files = [_written(each, quality) for each in levels]
    decoded = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])
    values = torch.from_numpy(decoded).permute(0, 3, 1, 2).float() / 255
    bits = torch.tensor([8.0 * payload(file) for file in files], dtype=torch.float64)
    return bits, values if images.shape[1] == 3 else values.mean(1, keepdim=True)


def _written(levels: np.ndarray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "WEBP", quality=quality, method=6)
    return buffer.getvalue()


def payload(file: bytes) -> int:
    """Bytes of the compressed image in a WebP file: without the RIFF header (12), the headers of chunks (8 each), other
    chunks, padding, and the 10 bytes of a lossy frame that give its size.

    Example:
        >>> file = _written(np.zeros((64, 64, 3), dtype=np.uint8), 50)
        >>> len(file) - payload(file)
        30
    """
    total, place = 0, 12
    while place + 8 <= len(file):
        name, size = file[place : place + 4], int.from_bytes(file[place + 4 : place + 8], "little")
        if name in (b"VP8 ", b"VP8L", b"ALPH"):
            total += size - FRAME_HEADER * (name == b"VP8 ")
        place += 8 + size + size % 2
    return total
