"""Random crops of a batch, for networks that take images of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..assembly.latent_diffusion import of_sides
from ..models import LatentVariableModel, Model
from ..models.latent import with_latents

__all__ = ["Crops", "crops_of", "random_crops"]


@dataclass(frozen=True, eq=False)
class Crops:
    """The crops that a model is trained on.

    Args:
        model: The same model, for images of their size.
        sides: Their height and width.
        share: Number of crops in an image, by area: what sums over a crop are multiplied by, so that they estimate
            those over an image, and the settings of a training suit both.
    """

    model: LatentVariableModel
    sides: tuple[int, int]
    share: float

    def of(self, x: Tensor) -> Tensor:
        """A random crop of each image ``(n, channels, H, W)``."""
        return random_crops(x, self.sides)


def crops_of(model: Model) -> Crops | None:
    """The crops that the recipe of a model asks for; None for whole examples.

    Args:
        model: The model.
    """
    recipe, data = model.recipe, model.data_spec
    if recipe is None or data is None or (sides := recipe.training_sides(data)) is None:
        return None
    model = with_latents(model)
    return Crops(of_sides(model, sides), sides, math.prod(data.shape[1:]) / math.prod(sides))


def random_crops(x: Tensor, sides: Sequence[int]) -> Tensor:
    """A random crop of each image, uniform over all positions.

    Args:
        x: Images, ``(n, channels, H, W)``.
        sides: Height and width of a crop.

    Returns:
        ``(n, channels, *sides)``.

    Example:
        >>> random_crops(torch.zeros(5, 3, 8, 8), (4, 6)).shape
        torch.Size([5, 3, 4, 6])
    """
    rows, columns = (_places(len(x), size, side, x.device) for size, side in zip(x.shape[2:], sides, strict=True))
    image = torch.arange(len(x), device=x.device)[:, None, None]
    return x.movedim(1, -1)[image, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def _places(n: int, size: int, side: int, device: torch.device) -> Tensor:
    first = torch.randint(size - side + 1, (n, 1), device=device)
    return first + torch.arange(side, device=device)
