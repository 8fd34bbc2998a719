r"""What each layer of a hierarchy carries: its information, and its use to the decoder.

Convention: ``compared`` holds log-densities of samples of N examples under the posteriors of all, ``(N, N)`` in nats,
by layer in the order of inference. In a top-down hierarchy the information of the layers adds up,

.. math:: I(x; z_{\ge l}) \ge \mathbb{E} \log q(z_{\ge l}^i \mid x_i) - \log \tfrac1N \sum_j q(z_{\ge l}^i \mid x_j),
    \qquad I(x; z_l \mid z_{>l}) = I(x; z_{\ge l}) - I(x; z_{>l}) \le \mathbb{E} \, \mathrm{KL}_l,

but no more than ln N can be shown in total: once the upper layers tell the examples apart, nothing can be shown of the
layers below. What each one alone tells, given the state of the layers above, does not have that limit,

.. math:: \mathbb{E} \log q(z_l^i \mid z_{>l}^i, x_i) - \log \tfrac1N \sum_j q(z_l^i \mid z_{>l}^i, x_j),

which is zero only if the layer's posterior does not depend on x. In a chain a layer depends on x only through the layer
below it, and its information is :math:`I(z_{l-1}; z_l)`, with :math:`z_0 = x`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ...data import Split
from ...models.latent import LatentVariableModel, Marginal, Terms
from ...posteriors import Compared, Space
from ...runtime.modes import evaluating
from ...runtime.randomness import fixed_noise
from ..estimate import Estimate

__all__ = ["LayerInformation", "information_of_layers", "own_and_aggregate", "use_of_layers"]

USED = 500
"""Maximum number of examples whose layers are exchanged."""


@dataclass(frozen=True)
class LayerInformation:
    """The information of one layer, nats.

    Args:
        information: Of a top-down hierarchy :math:`I(x; z_l \\mid z_{>l})`, of a chain :math:`I(z_{l-1}; z_l)`: a lower
            bound.
        alone: How well the layer alone tells the examples apart, given the layers inferred before it.
    """

    information: Estimate
    alone: Estimate


def own_and_aggregate(log_q: Tensor) -> tuple[Tensor, Tensor]:
    """Log-density of each sample given its own example, and given all, ``(n,)``.

    Args:
        log_q: Log-densities, ``(n, n)``: a row for each sample.

    Example:
        >>> own, aggregate = own_and_aggregate(torch.zeros(3, 3))
        >>> own.tolist(), aggregate.tolist()
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    """
    return log_q.diagonal(), log_q.logsumexp(1) - math.log(len(log_q))


def information_of_layers(space: Space, compared: Compared) -> dict[str, LayerInformation]:
    """The information of each layer, in the order of inference.

    Args:
        space: The space of the latents.
        compared: Samples of N examples under the posteriors of all.
    """
    found, total, before = dict[str, LayerInformation](), torch.zeros(()), torch.zeros(())
    for name, (_, log_q) in compared.items():
        alone = _told(log_q)
        total = total + log_q
        so_far = _told(total)
        found[name] = LayerInformation(Estimate.of(so_far - before if space.adds_up else alone), Estimate.of(alone))
        before = so_far
    return found


def _told(log_q: Tensor) -> Tensor:
    own, aggregate = own_and_aggregate(log_q)
    return own - aggregate


def use_of_layers(model: LatentVariableModel, split: Split, seed: int = 0) -> dict[str, Estimate]:
    """For each layer, from the data up, the loss of likelihood when its latent is that of another example.

    The likelihood is that of x, or in a chain above the first layer that of the layer below, which alone depends on it.
    The other layers stay as they are: of a top-down hierarchy their noise.

    Args:
        model: The model.
        split: The data, of which at most :data:`USED` evenly spaced examples are used.
        seed: Seed of all noise.

    Example:
        >>> import tightbound as tb
        >>> data = tb.load_data("digits")
        >>> model = tb.recipes.HVAE(layers=(4, 2), hidden=(16,)).build(data.spec)
        >>> list(use_of_layers(model, data.test))
        ['z1', 'z2']
    """
    some = split.evenly_spaced(USED)
    with torch.no_grad(), fixed_noise(seed), evaluating(model):
        x, c = model.see(some.batch(torch.randperm(len(some)), model.device))  # neighbours may be of one class
        px = model(c)
        return {name: Estimate.of(loss) for name, loss in _losses(px, x, px.terms(x)).items()}


def _losses(px: Marginal, x: Tensor, terms: Terms) -> dict[str, Tensor]:
    space, z = px.model.space, (terms.joint or terms.latents[0]).z[0]
    layers = space.split(z)
    other = lambda name: space.joined({**layers, name: layers[name].roll(1, 0)})
    found = {name: terms.log_likelihood[0] - px.likelihood(other(name)).log_prob(x) for name in layers}
    if terms.joint is not None:
        return found
    for below, layer in pairwise(terms.latents):  # the prior of the layer below is the likelihood of this one
        exchanged = dataclasses.replace(below, z=below.z.roll(1, 1)).log_prior.roll(-1, 1)
        found[layer.name] = (below.log_prior - exchanged)[0]
    return found
