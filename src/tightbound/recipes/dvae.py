"""The discrete variational autoencoder: images to a grid of codes, the first stage of DALL-E."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ..errors import UsageError
from ..options.data_spec import DataSpec
from ..options.parts import GridNetworks, require_sizes
from ..options.remedies import Remedy, halved
from ..options.training import TrainingOptions
from .gumbel_vae import Relaxation
from .versions import register_version_2

__all__ = ["DVAE"]


@register_version_2("dvae")
@dataclass(frozen=True)
class DVAE(GridNetworks, Relaxation):
    r"""Discrete variational autoencoder: a code at each position of a grid, relaxed in training.

    .. math:: \mathbb{E}_{q(z \mid x)} \log p(x \mid z) - \beta \sum_i \mathrm{KL}(q(z_i \mid x) \,\|\, p(z_i))

    Its authors divide this by the D entries of an image, so the mean KL of the P positions has weight :math:`\beta P /
    D` against the mean log-likelihood of an entry: :math:`6.6 / 192` with their :math:`\beta = 6.6`, P = 32 · 32 and D
    = 256 · 256 · 3 (:meth:`weight_of_means`). Here both are sums, so the same objective has ``beta`` 6.6.

    As for recipe gumbel-vae, ``bound`` uses relaxed samples in training, discrete ones in validation and evaluation.
    The published likelihood, ``--likelihood logit-laplace`` with margin 0.1, is a density, unbounded at pixels that
    hardly vary: without ``--dequantize`` these dominate, and codes stay unused. The default is a probability.

    :meth:`dalle` has the published settings. On the command line, for images of 3 x 256 x 256:

    .. code-block:: console

        $ tightbound train dvae --data IMAGES --image-size 256 --color rgb --out RUN --codes 8192
          --channels 256 512 1024 --likelihood logit-laplace --temperature-steps 150000 --beta 6.6
          --steps 3000000 --batch-size 512 --lr 1e-4 --weight-decay 1e-4 --ema 0.999
          --beta-warmup 0.0016667 --beta-schedule cosine

    References:
        Zero-Shot Text-to-Image Generation (Ramesh et al., 2021).

    Raises:
        UsageError: If an option is out of range, or the sides of the images cannot be halved that often.

    Example:
        >>> from tightbound.data import DataSpec
        >>> recipe = DVAE(codes=32, channels=(8, 16))
        >>> model = recipe.build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> model.posterior.grids, model.posterior.levels
        (((2, 2),), (32,))
        >>> DVAE.dalle().beta
        6.6
    """

    first_options: ClassVar[tuple[str, ...]] = ("codes", "channels")
    remedies: ClassVar[tuple[Remedy, ...]] = (
        *Relaxation.remedies,
        Remedy("fewer codes", "use fewer codes", lambda o: halved(o, "codes")),
    )

    codes: int = 512
    """Number of codes at each position."""
    channels: tuple[int, ...] = (64, 128)
    """Channels of each level, finest first; each level halves the sides of the grid."""
    norm: bool = True
    """Group normalisation in the residual blocks; without it codes may stay unused for long."""
    temperature_floor: float = 1 / 16
    """Temperature at the end; lower is closer to discrete latents, with noisier gradients."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes(channels=self.channels)
        if self.blocks < 0:
            raise UsageError("The number of blocks must not be negative.", got=self.blocks, expected="0 or more")
        if self.codes < 2:
            raise UsageError("A codebook needs at least two codes.", got=self.codes, remedy="Try --codes 512.")

    @classmethod
    def dalle(cls) -> DVAE:
        """The published settings: 8192 codes; logit-Laplace; temperature 1 to 1/16 over 150,000 steps; beta 6.6.

        With images of 3 x 256 x 256 the grid has 32 x 32 positions. The training options are :meth:`dalle_training`;
        widths are this package's. The recipe's docstring has both as a command.
        """
        return cls(
            codes=8192,
            channels=(256, 512, 1024),
            likelihood="logit-laplace",
            temperature_steps=150_000,
            beta=6.6,
        )

    @staticmethod
    def dalle_training() -> TrainingOptions:
        """The published training: 3,000,000 steps of AdamW, with a beta warm-up of 5,000.

        Example:
            >>> DVAE.dalle_training().warmup_steps(1_000_000)
            5000
        """
        return TrainingOptions(
            steps=3_000_000,
            batch_size=512,
            lr=1e-4,
            weight_decay=1e-4,
            ema=0.999,
            beta_warmup=0.0016667,
            beta_schedule="cosine",
        )

    def weight_of_means(self, data: DataSpec) -> float:
        r"""The weight :math:`\beta P / D` of the mean KL of a position if the log-likelihood is a mean over entries.

        Args:
            data: The data spec.

        Example:
            >>> data = DataSpec("pictures", shape=(3, 256, 256), levels=256)
            >>> round(192 * DVAE.dalle().weight_of_means(data), 6)
            6.6
        """
        positions = math.prod(side // 2 ** len(self.channels) for side in data.shape[1:])
        return self.beta * positions / data.dimensions
