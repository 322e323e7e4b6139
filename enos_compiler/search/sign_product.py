# SPDX-License-Identifier: Apache-2.0
"""The half of a composite layer that reads signs: product(sign x, B), kept small and cheap.

The signs are not stored but taken again of x in the backward pass, and no gradient flows into x:
mac, bw, mf, ef and shift train with none (90 against 90 % on small digits), and xnor, which in
depth needs the clipped one, gets it in fine-tuning, where it stands alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from enos_compiler.search.forms import Call


class _SignProduct(torch.autograd.Function):
    """product(sign x, B) with a gradient for B only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, call: Call, rows: slice | None) -> Tensor:
        """Return the layer's sum over signs of the input."""
        ctx.save_for_backward(x, weight)
        ctx.call, ctx.rows = call, rows
        return call.product(torch.sign(x), weight, None)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None, None]:
        """Return the weight's gradient, of all rows or estimated from some."""
        x, weight = ctx.saved_tensors
        gradient, share = gradients[0], 1.0
        if ctx.rows is not None:
            part = x[ctx.rows]
            share = len(x) / len(part)
            x, gradient = part, gradient[ctx.rows]
        found = weight_gradient(ctx.call, torch.sign(x), gradient, weight)
        return None, found * share if share != 1.0 else found, None, None


def sign_product(call: Call, x: Tensor, weight: Tensor, rows: slice | None = None) -> Tensor:
    """Return the layer's sum of `weight` over the signs of x.

    Args:
        call: for the layer's function.
        x: input as the layer reads it.
        weight: B.
        rows: of the batch, from which the gradient of B is estimated, unbiased if the batch is in
            random order; None takes all.
    """
    found: Tensor = _SignProduct.apply(x, weight, call, rows)  # type: ignore[no-untyped-call]
    return found


class _Probe(torch.autograd.Function):
    """A sum that leaves signs out, with the gradient that B would have in it."""

    @staticmethod
    def forward(
        ctx: Any, total: Tensor, x: Tensor, weight: Tensor, call: Call, rows: slice
    ) -> Tensor:
        """Return the sum as it is."""
        ctx.save_for_backward(x, weight)
        ctx.call, ctx.rows = call, rows
        return total.view_as(total)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the sum's gradient, and B's estimated from some rows."""
        x, weight = ctx.saved_tensors
        part = x[ctx.rows]
        found = weight_gradient(ctx.call, torch.sign(part), gradients[0][ctx.rows], weight)
        return gradients[0], None, found * (len(x) / len(part)), None, None


def probe_signs(call: Call, total: Tensor, x: Tensor, weight: Tensor, rows: slice) -> Tensor:
    """Return `total`, whose gradient also reaches the weights of signs that it does not hold.

    So a sampled candidate without a sum over signs tells what those with one would have changed.

    Args:
        call: for the layer's function.
        total: the sum over the input alone.
        x: input as the layer reads it.
        weight: B, of candidates that the sample left out.
        rows: of the batch, from which the gradient is estimated.
    """
    found: Tensor = _Probe.apply(total, x, weight, call, rows)  # type: ignore[no-untyped-call]
    return found


def weight_gradient(call: Call, x: Tensor, gradient: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient of product(x, weight) with respect to the weight."""
    gradient, x = gradient.to(weight.dtype), x.to(weight.dtype)
    if call.layer.op != "conv":
        return gradient.flatten(0, -2).T @ x.flatten(0, -2)
    attributes = call.attributes
    axes = x.dim() - 2
    begins, ends = attributes["padding"][:axes], attributes["padding"][axes:]
    if begins != ends:
        pairs = zip(reversed(begins), reversed(ends), strict=True)
        x = torch.nn.functional.pad(x, [extent for pair in pairs for extent in pair])
        begins = (0,) * axes
    found: Tensor = torch.ops.aten.convolution_backward(
        gradient,
        x,
        weight,
        None,
        attributes["stride"],
        begins,
        attributes["dilation"],
        False,
        (0,) * axes,
        attributes["groups"],
        (False, True, False),
    )[1]
    return found
