r"""Posteriors, and the spaces of their latents.

Convention: ``x`` is ``(*batch, *shape)``, a latent ``(*batch, *latent)``; codes are int64, one ``(*batch, *grid)`` for
each level, the top first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from ..conditions import Given
from ..distributions import has_density
from ..distributions.codes import CodePoint, CodeSpace
from ..distributions.packed import Packed, layer_slices
from ..errors import UsageError
from .encoded import Draws, Encoded, EncodedCodes, Moments

__all__ = ["CodePosterior", "Codes", "Compared", "Layers", "PackedLayers", "Posterior", "Reals", "Space"]

Compared = dict[str, tuple[Tensor, Tensor]]
"""For each layer, in the order of inference: a sample for each of n examples, ``(n, *latent)``, and its log-density
given the example of the column, ``(n, n)`` nats in float64."""


ENTRIES = 1 << 24
"""Number of densities of entries held at once."""


class Posterior(nn.Module):
    r"""Abstract :math:`q(z \mid x, c)`: a module whose call returns a distribution of latents.

    Any other module that does so can be used instead; its latents are then treated as real numbers.
    """

    @property
    def space(self) -> Space:
        """The space of its latents."""
        return Reals(self)


class CodePosterior(Posterior, CodeSpace):
    """Abstract: a posterior whose latents encode discrete codes."""

    means_are_vectors: bool = False
    """Whether the posterior mean is the vectors of its codes, not probabilities of codes."""
    at_mode: bool = False
    """Whether it is a point mass at its most probable codes in any mode, as a prior fitted to codes needs."""

    @property
    def space(self) -> Codes:
        """The space of its latents."""
        return Codes(self)

    def without_details(self, z: Tensor, kept: int) -> Tensor:
        """Latents with each vector of all but the first levels replaced by the mean of its level.

        Args:
            z: Latents ``(n, *latent)``.
            kept: Number of levels kept, the top first.
        """
        raise NotImplementedError


class Space:
    """Abstract: the space of a model's latents.

    Args:
        posterior: The posterior, or any module that gives a distribution of latents.
    """

    between: str = ""
    """A note on points between two latents; empty if they are valid latents too."""
    taken: str = ""
    """Which layers of a hierarchy the likelihood takes, as text; empty for one latent."""
    adds_up: bool = False
    """Whether every layer is inferred from x and the layers before it, so that their information about x adds up."""
    most_compared: int = 1000
    """Number of examples that :meth:`compared` takes in reasonable time."""

    def __init__(self, posterior: nn.Module) -> None:
        self.posterior = posterior

    @property
    def layers(self) -> tuple[Space, ...]:
        """The space of each latent, from the one next to the data up: of a hierarchy several."""
        return (self,)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers, from the one next to the data up."""
        return ("z",)

    @property
    def inferred(self) -> tuple[str, ...]:
        """Names of the layers in the order in which the posterior infers them."""
        return self.names

    def compared(self, x: Tensor, c: Given | None = None) -> Compared:
        r"""Samples of n examples, compared with the posteriors of all.

        The log-density of layer l of example i under example j is :math:`\log q(z_l^i \mid z_{l-1}^j)` in a chain, with
        :math:`z_0 = x`, and :math:`\log q(z_l^i \mid z_{>l}^i, x_j)` of a top-down hierarchy.

        Args:
            x: Examples, ``(n, *shape)``.
            c: Conditions of shape ``(n,)``.
        """
        q = self.posterior(x, c)
        z = q.sample()
        rows = max(1, ENTRIES // z.numel())
        log_q = torch.cat([q.log_prob(part.unsqueeze(1)).double() for part in z.split(rows)])
        return {self.names[0]: (z, log_q)}

    def representative(self, x: Tensor, c: Given | None = None) -> Tensor:
        """The representative latent of examples ``(n, *shape)``, as the likelihood takes it."""
        raise NotImplementedError

    def latents(self, x: Tensor, c: Given | None = None) -> dict[str, Tensor]:
        """The representative latent of each layer, given those inferred before it."""
        return self.split(self.representative(x, c))

    def split(self, z: Tensor) -> dict[str, Tensor]:
        """The layers in a latent as the likelihood takes it: of a chain only the first."""
        return {self.names[0]: z}

    def joined(self, latents: Mapping[str, Tensor]) -> Tensor:
        """The latent as the likelihood takes it, from the layers."""
        return latents[self.names[0]]

    def encoded(self, x: Tensor, c: Given | None = None) -> Encoded:
        """Examples ``(n, *shape)`` encoded for the training of a second stage."""
        raise NotImplementedError

    def coarser(self, z: Tensor) -> list[Tensor]:
        """Latents ``(n, *latent)`` without details, the coarsest first; often an empty list."""
        return []

    def unmoved(self, name: str) -> tuple[str, ...]:
        """Layers that stay the same when one of them moves."""
        return tuple(other for other in self.names if other != name)

    def layer_of_each(self, n: int) -> list[str]:
        """The layer of each of the n dimensions of a flattened latent, as the likelihood takes it."""
        return [layer for layer, _ in self._places(n)]

    def dimension_names(self, n: int) -> list[str]:
        """Names of these dimensions: z0, z1, ... of one latent, in a hierarchy z1[0], z1[1], ..., z2[0], ..."""
        places = self._places(n)
        return [f"{layer}{at}" if len(self.names) == 1 else f"{layer}[{at}]" for layer, at in places]

    def _places(self, n: int) -> list[tuple[str, int]]:
        """The layer of each dimension, and its index there."""
        found = dict[int, tuple[str, int]]()
        for name, places in self.split(torch.arange(n)).items():
            found |= {place: (name, at) for at, place in enumerate(places.tolist())}
        return [found[place] for place in range(n)]

    def described(self, x: Tensor, c: Given | None = None) -> dict[str, Tensor]:
        """The posterior of examples as named arrays: ``mean``, ``sample``, ``standard_deviation`` if it has one,
        ``codes``; in a chain those of upper layers too, with the layer's name in front.
        """
        return _described(self.posterior(x, c))


class Reals(Space):
    """Real-valued latents: a vector or a grid.

    Example:
        >>> import torch
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes import VAE
        >>> model = VAE(latent_dim=2).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> model.space.representative(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 2])
    """

    def representative(self, x: Tensor, c: Given | None = None) -> Tensor:
        return self.posterior(x, c).mean

    def encoded(self, x: Tensor, c: Given | None = None) -> Encoded:
        q = self.posterior(x, c)
        diagonal = isinstance(q, Independent) and isinstance(q.base_dist, Normal)  # mean and deviation determine it
        return (
            Moments(torch.stack([q.mean, q.stddev], dim=1))
            if diagonal
            else Draws(q.sample(), certain=not has_density(q))
        )


class Codes(Space):
    """Discrete latents: a code at each position of each level's grid.

    The mean of a distribution over codes is not a valid latent: it would give a decoder information that no code has.

    Example:
        >>> from tightbound.data import DataSpec
        >>> from tightbound.recipes.vq_vae import VQVAE
        >>> model = VQVAE(codes=16, channels=(8,)).build(DataSpec("digits", shape=(1, 8, 8), levels=17))
        >>> model.space.levels, model.space.grids
        ((16,), ((4, 4),))
    """

    between = "between the ends, z mixes two codes and is not a valid latent"
    posterior: CodePosterior

    def __init__(self, posterior: CodePosterior) -> None:
        super().__init__(posterior)

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of codes of each level."""
        return self.posterior.levels

    @property
    def grids(self) -> tuple[tuple[int, ...], ...]:
        """Shape of each level's grid."""
        return self.posterior.grids

    def representative(self, x: Tensor, c: Given | None = None) -> Tensor:
        return self.posterior.embed(self.posterior.codes(x, c))

    def encoded(self, x: Tensor, c: Given | None = None) -> Encoded:
        return EncodedCodes.of_levels(self.posterior.codes(x, c), self.posterior)

    def coarser(self, z: Tensor) -> list[Tensor]:
        return [self.posterior.without_details(z, kept) for kept in range(1, len(self.grids))]

    def described(self, x: Tensor, c: Given | None = None) -> dict[str, Tensor]:
        q = self.posterior(x, c)
        codes = q.codes if isinstance(q, CodePoint) else self.posterior.codes_of(q.mode)
        names = ["codes"] if len(codes) == 1 else [f"codes_{level}" for level in range(len(codes))]
        return _described(q) | {name: level.int() for name, level in zip(names, codes, strict=True)}


class Layers(Space):
    """Latents of a chain, from the data up: each is inferred from the one below it, and the likelihood takes the first.

    Args:
        layers: The space of each latent.
        names: Their names.

    Example:
        >>> import torch
        >>> from tightbound.networks import MLP
        >>> from tightbound.posteriors import DiagonalGaussian
        >>> q = [DiagonalGaussian(MLP(4, 2 * 3), (4,)), DiagonalGaussian(MLP(3, 2 * 2), (3,))]
        >>> space = Layers([each.space for each in q], ("z1", "z2"))
        >>> {name: tuple(z.shape) for name, z in space.latents(torch.zeros(5, 4)).items()}
        {'z1': (5, 3), 'z2': (5, 2)}
    """

    def __init__(self, layers: Sequence[Space], names: Sequence[str]) -> None:
        super().__init__(layers[0].posterior)
        self._layers, self._names, self.taken = tuple(layers), tuple(names), names[0]

    @property
    def layers(self) -> tuple[Space, ...]:
        return self._layers

    @property
    def names(self) -> tuple[str, ...]:
        return self._names

    def representative(self, x: Tensor, c: Given | None = None) -> Tensor:
        return self.layers[0].representative(x, c)

    def latents(self, x: Tensor, c: Given | None = None) -> dict[str, Tensor]:
        found = dict[str, Tensor]()
        for name, layer in zip(self.names, self.layers, strict=True):
            x = found[name] = layer.representative(x, c)
        return found

    def compared(self, x: Tensor, c: Given | None = None) -> Compared:
        found = Compared()
        for name, layer in zip(self.names, self.layers, strict=True):
            (found[name],) = layer.compared(x, c).values()
            x = found[name][0]
        return found

    def unmoved(self, name: str) -> tuple[str, ...]:
        return self.names[self.names.index(name) + 1 :]

    def described(self, x: Tensor, c: Given | None = None) -> dict[str, Tensor]:
        first, *others = self.layers
        found = first.described(x, c)
        sample = found["sample"]
        below = [*self.latents(x, c).values()]
        for name, layer, mean in zip(self.names[1:], others, below, strict=False):
            sample = layer.posterior(sample, c).sample()
            own = layer.described(mean, c) | {"sample": sample}
            found |= {f"{name}_{key}": value for key, value in own.items()}
        return found

    def encoded(self, x: Tensor, c: Given | None = None) -> Encoded:
        raise UsageError(
            "A prior can be fitted to one latent only, and this model has several.",
            got=f"{len(self.layers)} layers",
            remedy="Train with one instead: tightbound train hvae --prior mixture, coupling or spline.",
        )


class PackedLayers(Reals):
    """Latents of a top-down hierarchy: all layers in one vector, which the likelihood takes.

    Args:
        posterior: The posterior over the packed vector.
        sizes: Size of each layer by its name, from the data up; the vector has the top first.

    Example:
        >>> import torch
        >>> space = PackedLayers(nn.Identity(), {"z1": 3, "z2": 2})
        >>> {name: z.tolist() for name, z in space.split(torch.arange(5)).items()}
        {'z1': [2, 3, 4], 'z2': [0, 1]}
        >>> space.joined(space.split(torch.arange(5))).tolist()
        [0, 1, 2, 3, 4]
    """

    taken = "all layers"
    adds_up = True
    most_compared = 128  # as many passes through every group's network, of that many examples each

    def __init__(self, posterior: nn.Module, sizes: Mapping[str, int]) -> None:
        super().__init__(posterior)
        self.places = layer_slices(sizes)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.places)

    @property
    def inferred(self) -> tuple[str, ...]:
        return tuple(reversed(self.places))

    def compared(self, x: Tensor, c: Given | None = None) -> Compared:
        q: Packed = self.posterior(x, c)
        return q.pairs()

    def split(self, z: Tensor) -> dict[str, Tensor]:
        return {name: z[..., place] for name, place in self.places.items()}

    def joined(self, latents: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([latents[name] for name in reversed(self.names)], dim=-1)


def _described(q: Distribution) -> dict[str, Tensor]:
    values = {"mean": q.mean, "sample": q.sample()}
    return values | ({"standard_deviation": q.stddev} if has_density(q) else {})
