# SPDX-License-Identifier: Apache-2.0
"""Lowers a traced network to the closed set of canonical operations."""

from __future__ import annotations

import difflib
from dataclasses import replace
from functools import cache
from typing import Any

from torch import fx

from enos_compiler import plugins
from enos_compiler.errors import PassError
from enos_compiler.frontend.annotate import annotate
from enos_compiler.frontend.hoist import hoist
from enos_compiler.frontend.lowering import LOWERINGS, Builder, lowering_of
from enos_compiler.frontend.recognise import recognise
from enos_compiler.frontend.record import ITEM
from enos_compiler.ir.network import Network


def lower(network: Network) -> Network:
    """Return the network with a canonical graph and its layers, vectors and values.

    The float outputs of the canonical graph are the traced model's up to float32 rounding.

    Raises:
        FrontendError: an operation has no lowering; names the user's line and what to change.
    """
    _load_lowerings()
    builder = Builder(network.graph)
    made: dict[fx.Node, Any] = {}
    for node in network.graph.graph.nodes:
        made[node] = _lower_node(builder, node, made)
    recognise(builder)
    hoist(builder.graph)
    for node in reversed(list(builder.graph.nodes)):
        if not node.users and node.op not in ("placeholder", "output"):
            builder.graph.erase_node(node)
    lowered = replace(network, graph=fx.GraphModule(builder.root, builder.graph))
    annotated = annotate(lowered)
    note = str(network.sections.get("trace", {}).get("note", ""))
    if network.batch_is_symbolic and (moved := _batch_elsewhere(builder.graph)):
        annotated = replace(annotated, batch_is_symbolic=False)
        note = f"the batch is fixed at {network.batch}: `{moved}` does not lead with it"
    section = {
        "batch": network.batch,
        "batch_is_symbolic": annotated.batch_is_symbolic,
        "note": note,
        "layers": len(annotated.layers),
        "vectors": len(annotated.vectors),
    }
    rest = {name: body for name, body in network.sections.items() if name != "trace"}
    return replace(annotated, sections={**rest, "canonicalize": section})


def _batch_elsewhere(graph: fx.Graph) -> str | None:
    """Return the first node whose tensor carries the batch on another axis than the first."""
    for node in graph.nodes:
        if node.op == "call_function" and node.meta["shape"][1:] != node.meta["grown"][1:]:
            return str(node.name)
    return None


@cache
def _load_lowerings() -> None:
    """Import the files that fill the table of lowerings."""
    from enos_compiler.frontend import (  # noqa: F401 - importing registers
        lower_attention,
        lower_elementwise,
        lower_layers,
        lower_movement,
        lower_padding,
        lower_pooling,
        lower_sampling,
        lower_transposed,
    )


def _lower_node(b: Builder, node: fx.Node, made: dict[fx.Node, Any]) -> Any:
    """Return what one recorded node becomes: a node, or a tuple for several results."""
    b.current = node
    if node.op == "placeholder":
        return b.placeholder(node)
    if node.op == "get_attr":
        return b.attribute(node)
    arguments = fx.node.map_arg((node.args, node.kwargs), lambda n: made[n])
    args, kwargs = _plain(arguments[0]), _plain(arguments[1])
    if node.op == "output":
        return b.graph.output(tuple(args[0]))
    if node.target is ITEM:
        return args[0][args[1]]
    result = _lower_call(b, node, args, kwargs)
    if isinstance(result, fx.Node):
        _check_shape(node, result)
    return result


def _lower_call(b: Builder, node: fx.Node, args: Any, kwargs: Any) -> Any:
    """Lower one call through the table, or take over a registered vector operation."""
    call = str(node.meta["call"])
    if _is_registered(node.target):
        return b.call(node.target, *args, **kwargs)  # type: ignore[arg-type]  # a callable
    lowering = lowering_of(call)
    if lowering is None:
        close = difflib.get_close_matches(call, LOWERINGS, n=1, cutoff=0.6)
        raise b.error(
            f"operation `{call}` is not supported",
            f"use `{close[0]}`" if close else "write it with supported operations",
        )
    if node.target is getattr:
        args = args[:1]
    try:
        return lowering(b, *args, **kwargs)
    except TypeError as error:
        if "argument" not in str(error) or error.__traceback__ is None:
            raise
        if error.__traceback__.tb_next is not None:
            raise
        message = str(error).rpartition("() ")[2]
        raise b.error(
            f"this form of `{call}` is not supported: {message}", "use its plain form"
        ) from error


@cache
def _registered() -> tuple[Any, ...]:
    return tuple(plugins.load("vector_ops", name).function for name in plugins.names("vector_ops"))


def _is_registered(target: Any) -> bool:
    return any(target is function for function in _registered())


def _plain(value: Any) -> Any:
    """Return fx's immutable containers as Python's own."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    return value


def _check_shape(recorded: fx.Node, made: fx.Node) -> None:
    """Raise if a lowering does not give the shape that the user's call gave."""
    for key in ("shape", "grown"):
        wanted = recorded.meta.get(key, recorded.meta["shape"])
        if made.meta[key] != wanted:
            raise PassError(
                f"`{recorded.meta['call']}` gives {wanted} but its lowering {made.meta[key]}",
                place=recorded.meta.get("place"),
                remedy="this is a defect of the lowering; report it with the model's line",
            )
