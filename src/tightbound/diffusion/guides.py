r"""How the samples of a model are guided: by its own condition, a weaker model, or a classifier.

Convention: a strength :math:`\gamma` of 1 is the conditional model, 0 the unconditional one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from ..conditions import Given
from ..distributions import Sampling
from ..errors import UsageError
from .denoiser import Denoise, Denoiser
from .guidance import Guided

__all__ = ["ClassifierFree", "Guide", "Weaker"]


class Guide(ABC):
    """Abstract: makes the denoiser by which samples are drawn."""

    without_condition: ClassVar[bool] = False
    """Whether the model is also asked without its condition."""

    @abstractmethod
    def guiding(self, denoiser: Denoiser, c: Given | None, how: Sampling) -> Denoise:
        """The guided denoiser.

        Args:
            denoiser: That of the model.
            c: Conditions of the samples, ``(n)``, or None.
            how: The strength of guidance, the levels at which it acts, and rescaling.
        """


def given(denoiser: Denoiser, c: Given | None) -> Denoise:
    """A denoiser with its condition."""
    return lambda x, sigma: denoiser(x, sigma, c)


class ClassifierFree(Guide):
    """The model with its condition, and without: what is trained by dropping conditions.

    References:
        Classifier-Free Diffusion Guidance (Ho and Salimans, 2022).

    Example:
        >>> import torch
        >>> from tightbound.diffusion import GaussianOracle
        >>> oracle = GaussianOracle(torch.zeros(2), torch.ones(2))
        >>> ClassifierFree().guiding(oracle, None, Sampling())(torch.ones(1, 2), torch.tensor(1.0))
        tensor([[0.5000, 0.5000]])
    """

    without_condition = True

    def guiding(self, denoiser: Denoiser, c: Given | None, how: Sampling) -> Denoise:
        if how.guidance == 1:
            return given(denoiser, c)
        if c is None:
            raise UsageError(
                "Guidance needs a condition.",
                got=f"guidance {how.guidance:g} of samples without a condition",
                expected="a conditional model, or another model that guides",
                remedy="Leave --guidance out, or add --guide-with RUN.",
            )
        strong, weak = given(denoiser, c), given(denoiser, c.missing())
        return Guided(strong, weak, how.guidance, interval=how.interval, rescale=how.rescale)


class Weaker(Guide):
    """Away from a weaker model of the same data (autoguidance).

    References:
        Guiding a Diffusion Model with a Bad Version of Itself (Karras et al., 2024).

    Args:
        weak: Its denoiser, in the same units and with the same conditions.

    Example:
        >>> import torch
        >>> from tightbound.diffusion import GaussianOracle
        >>> strong, weak = (GaussianOracle(torch.zeros(1), torch.full((1,), v)) for v in (1.0, 3.0))
        >>> Weaker(weak).guiding(strong, None, Sampling(guidance=2.0))(torch.ones(1, 1), torch.tensor(1.0))
        tensor([[0.2500]])
    """

    def __init__(self, weak: Denoiser) -> None:
        self.weak = weak

    def guiding(self, denoiser: Denoiser, c: Given | None, how: Sampling) -> Denoise:
        strong, weak = given(denoiser, c), given(self.weak, c)
        return Guided(strong, weak, how.guidance, interval=how.interval, rescale=how.rescale)
