# SPDX-License-Identifier: Apache-2.0
"""Finds the named functions and layers that files and users write out in pieces.

x * sigmoid(x) is silu, x * hardsigmoid(x) hardswish, x * (1 + erf(x / sqrt(2))) / 2 gelu; a mean
taken off, squared and averaged is a layer norm; a constant added behind a linear layer is its bias.
One table, one integer norm or one bias then does what several rounded steps would.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isclose, sqrt

from torch import Tensor, fx

from enos_compiler.frontend.lowering import Builder
from enos_compiler.ir import ops

_GATES = {"sigmoid": "silu", "hardsigmoid": "hardswish"}
"""Functions that x is multiplied by, and what the product is called."""


def recognise(b: Builder) -> None:
    """Replace written-out forms by the named ones; the computed function stays."""
    _drop_unread(b.graph)
    for rule in (_gate, _gelu, _layer_norm, _bias):
        for node in list(b.graph.nodes):
            if node.op == "call_function" and node.users and rule(b, node):
                _drop_unread(b.graph)
    _attributes_first(b.graph)


def _drop_unread(graph: fx.Graph) -> None:
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op == "call_function":
            graph.erase_node(node)


def _attributes_first(graph: fx.Graph) -> None:
    """Put every attribute before the nodes that compute; derived ones were made among them."""
    front = next(n for n in graph.nodes if n.op != "placeholder")
    for node in list(graph.nodes):
        if node.op == "get_attr" and node is not front:
            front.prepend(node)


def _gate(b: Builder, node: fx.Node) -> bool:
    """Recognise x * f(x)."""
    for x, gate in _operand_orders(node, ops.mul):
        name = _GATES.get(_function(gate))
        if name is not None and gate.args[0] is x:
            _replace(b, node, "elementwise", x, function=name, parameters=())
            return True
    return False


def _gelu(b: Builder, node: fx.Node) -> bool:
    """Recognise a x * (1 + erf(x / sqrt(2))) with a = 1/2, wherever the half is multiplied in."""
    factor, product = _scaled(node)
    for side, bell in _operand_orders(product, ops.mul):
        inner_factor, x = _scaled(side)
        weight, offset, erf = _affine_of(bell)
        if not isinstance(erf, fx.Node) or _function(erf) != "erf":
            continue
        scale, argument = _scaled(erf.args[0])
        total = factor * inner_factor * weight
        is_bell = isclose(weight, offset) and isclose(scale, sqrt(0.5), rel_tol=1e-6)
        if is_bell and argument is x and isclose(total, 0.5):
            _replace(b, node, "elementwise", x, function="gelu", parameters=())
            return True
    return False


def _layer_norm(b: Builder, node: fx.Node) -> bool:
    """Recognise (x - mean) / sqrt(mean((x - mean)^2) + eps) over the last axis, scaled or not."""
    for centred, inverse in _operand_orders(node, ops.mul):
        found = _centred_mean(centred)
        eps = _inverse_deviation(inverse, centred)
        if found is None or eps is None:
            continue
        extent = found.meta["shape"][-1]
        norm = _replace(b, node, "layer_norm", found, None, None, shape=(extent,), eps=eps)
        _absorb_scale(b, norm, extent)
        return True
    return False


def _centred_mean(node: fx.Node) -> fx.Node | None:
    """Return x where a node is x - mean(x) over the last axis."""
    if node.target is not ops.sub:
        return None
    x, mean = node.args
    return x if _is_last_mean(mean, x) else None  # type: ignore[return-value]  # a node


def _is_last_mean(node: object, x: object) -> bool:
    return (
        isinstance(node, fx.Node)
        and isinstance(x, fx.Node)
        and node.target is ops.mean
        and node.args[0] is x
        and node.kwargs["dims"] == (len(x.meta["shape"]) - 1,)
        and bool(node.kwargs["keepdim"])
    )


def _inverse_deviation(node: fx.Node, centred: fx.Node) -> float | None:
    """Return eps where a node is 1 / sqrt(mean(centred^2) + eps)."""
    if _function(node) == "rsqrt":
        inside = node.args[0]
    elif _function(node) == "reciprocal" and _function(node.args[0]) == "sqrt":
        inside = node.args[0].args[0]  # type: ignore[union-attr]  # an elementwise node
    else:
        return None
    weight, eps, variance = _affine_of(inside)
    if weight != 1.0 or not isinstance(variance, fx.Node) or variance.target is not ops.mean:
        return None
    square = variance.args[0]
    is_square = _function(square) == "square" and square.args[0] is centred  # type: ignore[union-attr]
    return eps if is_square and _is_last_mean(variance, square) else None


def _absorb_scale(b: Builder, norm: fx.Node, extent: int) -> None:
    """Take a constant factor and a constant sum behind a norm into it."""
    taken: dict[type, fx.Node] = {}
    end = norm
    for operation in (ops.mul, ops.add):
        user = next(iter(end.users)) if len(end.users) == 1 else None
        operands = _operand_orders(user, operation) if user is not None else []
        constant = next((c for x, c in operands if x is end and _is_row(b, c, extent)), None)
        if user is None or constant is None:
            continue
        taken[operation] = constant  # type: ignore[index]  # keyed by the operation
        end = user
    if not taken:
        return
    weight, bias = (taken.get(operation) for operation in (ops.mul, ops.add))  # type: ignore[call-overload]
    rows = [None if c is None else b.derive(c, "row", _as_row) for c in (weight, bias)]
    source: fx.Node = norm.args[0]  # type: ignore[assignment]
    _replace(b, end, "layer_norm", source, *rows, **norm.kwargs)


def _bias(b: Builder, node: fx.Node) -> bool:
    """Recognise a constant row added to a layer without a bias that nothing else reads."""
    for layer, constant in _operand_orders(node, ops.add):
        if layer.target not in (ops.linear, ops.conv) or len(layer.users) != 1:
            continue
        has_bias = len(layer.args) > 2 and layer.args[2] is not None
        axes = len(layer.meta["shape"]) - 2 if layer.target is ops.conv else 0
        channels = layer.meta["shape"][-1 - axes]
        if has_bias or not _is_row(b, constant, channels, behind=axes):
            continue
        bias = b.derive(constant, "row", _as_row)
        x, weight = layer.args[:2]
        attributes = dict(layer.kwargs)
        op = "conv" if axes else "linear"
        _replace(b, node, op, x, weight, bias, name=layer.name, **attributes)
        return True
    return False


def _is_row(b: Builder, node: object, extent: int, behind: int = 0) -> bool:
    """Whether a node is a constant of one entry per element of an axis, `behind` from the last."""
    if not isinstance(node, fx.Node) or not b.is_constant(node):
        return False
    shape = node.meta["shape"]
    return len(shape) > behind and shape[-1 - behind] == extent == b.tensor(node).numel()


def _as_row(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1)


def _operand_orders(node: object, function: Callable[..., Tensor]) -> list[tuple[fx.Node, fx.Node]]:
    """Return both orders of a two-operand node's operands; none for other nodes."""
    if not isinstance(node, fx.Node) or node.target is not function:
        return []
    first, second = node.args[:2]
    if not isinstance(first, fx.Node) or not isinstance(second, fx.Node):
        return []
    return [(first, second), (second, first)]


def _function(node: object) -> str:
    """Return the name of an elementwise node's function; "" for other nodes."""
    if isinstance(node, fx.Node) and node.target is ops.elementwise:
        return str(node.kwargs["function"])
    return ""


def _affine_of(node: object) -> tuple[float, float, object]:
    """Return (a, c, x) of a node that is a*x + c; (1, 0, node) for others."""
    if isinstance(node, fx.Node) and _function(node) == "affine":
        parameters: tuple[float, float] = node.kwargs["parameters"]  # type: ignore[assignment]
        return *parameters, node.args[0]
    return 1.0, 0.0, node


def _scaled(node: object) -> tuple[float, object]:
    """Return (a, x) of a node that is a*x; (1, node) for others."""
    a, c, x = _affine_of(node)
    return (a, x) if c == 0.0 else (1.0, node)


def _replace(
    b: Builder, node: fx.Node, op: str, *operands: object, **attributes: object
) -> fx.Node:
    """Put one call in the place of a node and of what only it read."""
    with b.graph.inserting_before(node):
        b.current = node
        node.meta.setdefault("hint", node.name)
        made = b.emit(op, *operands, **attributes)  # type: ignore[arg-type]
    for key in ("place", "origin"):
        made.meta[key] = node.meta.get(key)
    node.replace_all_uses_with(made)
    b.graph.erase_node(node)
    return made
