r"""A linear layer that uses the faster of a processor's two matrix libraries.

Packing weights for oneDNN once, for sampling, is faster than torch's own layer on every processor tested (AVX2, and
AVX-512 of Zen 4 and Zen 5; from 4 rows on); packing at each call, which training needs, is faster on some only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, FunctionCtx
from torch.nn import functional as F

from ..runtime.processor import matrix_library

__all__ = ["Linear", "packed"]

LARGE = 1 << 21
"""Number of multiplications above which oneDNN is worth its layout copies."""


class Linear(nn.Linear):
    r"""torch's linear layer, :math:`y = W x + b`, with large float32 products computed by the faster library of a CPU.

    Where :func:`~tightbound.runtime.processor.matrix_library` selects it, that is oneDNN, which torch ships for
    convolutions. Everything else (other devices and types, autocast, ``torch.compile``, function transforms) is
    torch's own layer.

    Args:
        in_features: Size of one input.
        out_features: Size of one output.

    Example:
        >>> Linear(3, 2)(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def forward(self, input: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or not self._by_onednn(input):
            return F.linear(input, self.weight, self.bias)
        return by_onednn(input, self.weight, self.bias)

    def _by_onednn(self, x: Tensor) -> bool:
        return (
            matrix_library() == "onednn"
            and x.numel() * self.out_features >= LARGE
            and x.device.type == self.weight.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and self.bias is not None
            and not torch.is_autocast_enabled("cpu")
            and not torch._C._are_functorch_transforms_active()
        )


def by_onednn(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The layer's output by oneDNN, ``(*batch, out_features)``, with gradients."""
    return _ByOneDNN.apply(x.flatten(0, -2), weight, bias).unflatten(0, x.shape[:-1])


class _ByOneDNN(torch.autograd.Function):
    """The layer and its gradients by oneDNN; second derivatives by torch's own products."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.ops.aten.mkldnn_linear(x.to_mkldnn(), weight, bias).to_dense()

    @staticmethod
    def backward(ctx: BackwardCFunction, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (y_grad,) = list(ctx.saved_tensors), grad_outputs
        if torch.is_grad_enabled():  # the gradients must be differentiable too
            return y_grad @ weight, y_grad.T @ x, y_grad.sum(0)
        wanted = list(ctx.needs_input_grad)
        grads = torch.ops.aten.mkldnn_linear_backward(x.to_mkldnn(), y_grad.to_mkldnn(), weight, wanted)
        return tuple(g.to_dense() if want else None for g, want in zip(grads, wanted, strict=True))


class _PackedLinear(nn.Module):
    """A linear layer for sampling: its weight is packed for oneDNN once, which :class:`Linear` does at each call.

    Args:
        layer: The layer, in float32 on a CPU.
        rows: Number of rows of the products.
    """

    def __init__(self, layer: Linear, rows: int) -> None:
        super().__init__()
        self.weight, self.bias = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows), layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


def packed(layer: nn.Module, rows: int) -> nn.Module:
    """The layer packed for products with that many rows if that is faster and allowed, else the layer itself."""
    return _PackedLinear(layer, rows) if type(layer) is Linear and rows >= 4 and _packs(layer.weight) else layer


def _packs(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )
