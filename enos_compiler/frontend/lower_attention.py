# SPDX-License-Identifier: Apache-2.0
"""Lowers attention, softmax, embeddings and einsum."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import torch
from torch import Tensor, fx

from enos_compiler.frontend.lower_elementwise import MASKED, affine, function_of
from enos_compiler.frontend.lower_layers import linear, matmul
from enos_compiler.frontend.lower_movement import permuted, transpose
from enos_compiler.frontend.lowering import Builder, lowers


@lowers("softmax", "_softmax")
def softmax(
    b: Builder, input: fx.Node, dim: int | None = None, dtype: Any = None, **_: Any
) -> fx.Node:
    """Softmax along an axis."""
    if dim is None:
        raise b.error("softmax without an axis", "pass dim")
    if dtype not in (None, torch.float32):
        raise b.error(f"softmax in {dtype}", "leave dtype out")
    return b.emit("softmax", input, dim=b.axis(input, dim))


@lowers("log_softmax")
def log_softmax(
    b: Builder, input: fx.Node, dim: int | None = None, dtype: Any = None, **_: Any
) -> fx.Node:
    """Logarithm of the softmax."""
    return function_of(b, softmax(b, input, dim, dtype), "log")


@lowers("softmin")
def softmin(b: Builder, input: fx.Node, dim: int | None = None, **_: Any) -> fx.Node:
    """Softmax of the negated input."""
    return softmax(b, function_of(b, input, "neg"), dim)


@lowers("embedding")
def embedding(
    b: Builder,
    input: fx.Node,
    weight: fx.Node,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> fx.Node:
    """Rows of a table."""
    del padding_idx, norm_type, scale_grad_by_freq, sparse  # they concern training alone
    if max_norm is not None:
        raise b.error("an embedding that renormalises its rows", "leave max_norm out")
    return b.emit("embedding", input, weight)


@lowers("scaled_dot_product_attention")
def scaled_dot_product_attention(
    b: Builder,
    query: fx.Node,
    key: fx.Node,
    value: fx.Node,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> fx.Node:
    """softmax(q k^T * scale + mask) v."""
    if dropout_p:
        raise b.error(
            f"attention with dropout_p = {dropout_p}", "pass dropout_p=0.0 unless self.training"
        )
    if enable_gqa and query.meta["shape"][-3] != key.meta["shape"][-3]:
        raise b.error("grouped-query attention", "repeat the keys and values before the call")
    factor = 1 / sqrt(query.meta["shape"][-1]) if scale is None else float(scale)
    name = _hint(b)
    scores = matmul(b, query, transpose(b, key, -1, -2))
    scores = affine(b, scores, factor, 0.0)
    scores = _masked(b, scores, attn_mask, is_causal=is_causal)
    weights = b.emit("softmax", scores, dim=len(scores.meta["shape"]) - 1, name=f"{name}_softmax")
    return matmul(b, weights, value)


def _hint(b: Builder) -> str:
    return str(b.current.meta["hint"]) if b.current is not None else "attention"


def _masked(b: Builder, scores: fx.Node, mask: Any, *, is_causal: bool) -> fx.Node:
    """Add a mask to attention scores: constant, boolean (True is kept) or added numbers."""
    if is_causal and mask is None:
        rows, columns = scores.meta["shape"][-2:]
        mask = b.constant("causal", torch.full((rows, columns), MASKED).triu(1))
        return b.emit("add", scores, mask)
    if mask is None:
        return scores
    if b.is_constant(mask):
        mask = b.derive(mask, "added", _as_added)
    elif mask.meta["dtype"] == "bool":
        raise b.error("an attention mask that depends on the input", "use a constant mask")
    return b.emit("add", scores, mask)


def _as_added(mask: Tensor) -> Tensor:
    """Return a mask as numbers to add: 0 where a key is seen, `MASKED` where it is not."""
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape).masked_fill(~mask, MASKED)
    return mask.float().clamp(min=MASKED)


@lowers("multi_head_attention_forward")
def multi_head_attention(
    b: Builder,
    query: fx.Node,
    key: fx.Node,
    value: fx.Node,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Any,
    in_proj_bias: Any,
    bias_k: Any,
    bias_v: Any,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: fx.Node,
    out_proj_bias: Any,
    training: bool = False,
    key_padding_mask: Any = None,
    need_weights: bool = True,
    attn_mask: Any = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Any = None,
    k_proj_weight: Any = None,
    v_proj_weight: Any = None,
    static_k: Any = None,
    static_v: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[fx.Node, ...]:
    """Multi-head attention of (length, batch, features) as layers, products and a softmax.

    The scale 1 / sqrt(features per head) goes into the query's projection.
    """
    if not all(x is None for x in (bias_k, bias_v, static_k, static_v)) or add_zero_attn:
        raise b.error("attention with bias_kv or add_zero_attn", "leave these options out")
    if training and dropout_p:
        raise b.error("attention dropout in training mode", "use evaluation mode")
    if key_padding_mask is not None and not b.is_constant(key_padding_mask):
        raise b.error("a key padding mask that depends on the input", "use full sequences")
    width = embed_dim_to_check
    name = _hint(b)
    rows = [slice(index * width, (index + 1) * width) for index in range(3)]
    weights = [(in_proj_weight, taken) for taken in rows]
    if use_separate_proj_weight:
        weights = [(w, slice(None)) for w in (q_proj_weight, k_proj_weight, v_proj_weight)]
    q, k, v = (
        _projected(b, x, part, weight, (in_proj_bias, taken), num_heads)
        for part, x, weight, taken in zip("qkv", (query, key, value), weights, rows, strict=True)
    )
    scores = b.emit("matmul", q, permuted(b, k, (0, 1, 3, 2)), name=f"{name}_scores")
    scores = _masked_heads(b, scores, attn_mask, key_padding_mask, is_causal=is_causal)
    shares = b.emit("softmax", scores, dim=3, name=f"{name}_softmax")
    mixed = permuted(b, b.emit("matmul", shares, v, name=f"{name}_mixed"), (0, 2, 1, 3))
    joined = b.reshape(mixed, lambda s: (*s[:2], s[2] * s[3]))
    result = linear(b, joined, out_proj_weight, out_proj_bias)
    result = permuted(b, result, (1, 0, 2))
    is_unbatched = len(query.meta["shape"]) == 2
    if is_unbatched:
        result = b.reshape(result, lambda s: (s[0], s[2]))
    if not need_weights:
        return (result,)
    seen = b.emit("mean", shares, dims=(1,), keepdim=False) if average_attn_weights else shares
    return result, b.reshape(seen, lambda s: s[1:]) if is_unbatched else seen


def _projected(
    b: Builder,
    x: fx.Node,
    part: str,
    weight: tuple[Any, slice],
    bias: tuple[Any, slice],
    heads: int,
) -> fx.Node:
    """Return query, key or value as (batch, heads, length, features per head).

    Args:
        b: where nodes are emitted.
        x: (length, batch, features) or (length, features).
        part: `q`, `k` or `v`.
        weight: a parameter and the rows of it that belong to the part.
        bias: likewise; the parameter may be None.
        heads: how many.
    """
    width = bias[1].stop - bias[1].start
    scaling = 1 / sqrt(width // heads) if part == "q" else 1.0

    def scaled(parameter: Any, rows: slice) -> Any:
        return b.derive(parameter, part, lambda w: w[rows] * scaling)

    offset = None if bias[0] is None else scaled(*bias)
    source = _batch_first(b, x)
    projected = b.emit("linear", source, scaled(*weight), offset, name=f"{_hint(b)}_{part}")
    split = b.reshape(projected, lambda s: (*s[:2], heads, s[2] // heads))
    return permuted(b, split, (0, 2, 1, 3))


def _batch_first(b: Builder, x: fx.Node) -> fx.Node:
    """Return (batch, length, features) of (length, batch, features) or (length, features)."""
    if len(x.meta["shape"]) == 2:
        return b.reshape(x, lambda s: (1, *s))
    return permuted(b, x, (1, 0, 2))


def _masked_heads(
    b: Builder, scores: fx.Node, mask: Any, padding: Any, *, is_causal: bool
) -> fx.Node:
    """Add the masks of multi-head attention, in which True is *hidden*, to (N, h, L, S)."""
    heads, rows, columns = scores.meta["shape"][1:]
    if mask is None and is_causal:
        return _masked(b, scores, None, is_causal=True)
    if mask is not None and not b.is_constant(mask):
        raise b.error("an attention mask that depends on the input", "use a constant mask")
    if mask is not None:
        shape = (rows, columns) if len(mask.meta["shape"]) == 2 else (-1, heads, rows, columns)
        mask = b.derive(mask, "added", lambda m: _hidden_as_added(m).reshape(shape))
        scores = b.emit("add", scores, mask)
    if padding is not None:
        hidden = b.derive(
            padding, "added", lambda m: _hidden_as_added(m).reshape(-1, 1, 1, columns)
        )
        scores = b.emit("add", scores, hidden)
    return scores


def _hidden_as_added(mask: Tensor) -> Tensor:
    return _as_added(~mask if mask.dtype == torch.bool else mask)


@lowers("einsum")
def einsum(b: Builder, equation: str, *operands: Any) -> fx.Node:
    """Product of two tensors by the letters of their axes, as one matrix product."""
    xs = list(operands[0]) if isinstance(operands[0], tuple | list) else list(operands)
    terms, _, out = equation.replace(" ", "").partition("->")
    names = terms.split(",")
    if len(xs) == 1 and sorted(names[0]) == sorted(out):
        return permuted(b, xs[0], [names[0].index(c) for c in out])
    if (
        len(xs) != 2
        or "." in equation
        or not out
        or any(len(set(n)) != len(n) for n in (*names, out))
        or set(names[0]) ^ set(names[1]) != (set(names[0]) ^ set(names[1])) & set(out)
    ):
        raise b.error(
            f"einsum `{equation}` is no product of two tensors",
            "write it with permute, matmul and sum",
        )
    left, right = names
    shared = [c for c in left if c in right]
    lead = [c for c in shared if c in out]
    inner = [c for c in shared if c not in out]
    rows, columns = ([c for c in n if c not in shared] for n in (left, right))
    order = [*lead, *rows, *columns]
    is_linear = b.is_constant(xs[1]) and not lead
    a = _grouped(
        b, xs[0], left, (lead, *([c] for c in rows), inner) if is_linear else (lead, rows, inner)
    )
    y = matmul(b, a, _grouped(b, xs[1], right, (lead, inner, columns)))
    extents = [
        {
            c: n
            for name, x in zip(names, xs, strict=True)
            for c, n in zip(name, x.meta[key], strict=True)
        }
        for key in ("shape", "grown")
    ]
    here, there = ([known[c] for c in order] for known in extents)
    y = b.reshape(y, lambda s: here if s == y.meta["shape"] else there)
    return permuted(b, y, [order.index(letter) for letter in out])


def _grouped(b: Builder, x: fx.Node, name: str, groups: Sequence[Sequence[str]]) -> fx.Node:
    """Order axes by groups of letters and merge each group but the leading one's batch."""
    order = [name.index(c) for group in groups for c in group]
    if b.is_constant(x):
        key = "x".join(map(str, order))
        counts = [len(g) for g in groups]
        return b.derive(
            x, f"ordered_{key}", lambda t: _merged(t.permute(order), counts).contiguous()
        )
    moved = permuted(b, x, order)
    lead, rest = len(groups[0]), [len(g) for g in groups[1:]]
    return b.reshape(moved, lambda s: (*s[:lead], *_products(s[lead:], rest)))


def _merged(t: Tensor, counts: Sequence[int]) -> Tensor:
    lead = tuple(t.shape[: counts[0]])
    return t.reshape(*lead, *_products(tuple(t.shape[counts[0] :]), counts[1:]))


def _products(extents: Sequence[int], counts: Sequence[int]) -> tuple[int, ...]:
    """Return the product of each run of `counts` extents."""
    merged, start = [], 0
    for count in counts:
        product = 1
        for n in extents[start : start + count]:
            product *= n
        merged.append(product)
        start += count
    return tuple(merged)
