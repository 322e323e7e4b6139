# SPDX-License-Identifier: Apache-2.0
"""Moves clamps and norms up to the node that can absorb them.

A clamp commutes with whatever moves or selects elements, a batch norm with cuts and interleaving;
at a layer or at another rounding operation they cost nothing, since its rounding does their work.
"""

from __future__ import annotations

from torch import fx

from enos_compiler.ir import ops

_CLAMP_PASSES = (ops.max_pool, ops.reshape, ops.permute, ops.slice_, ops.resize_nearest)
_CLAMP_ENDS = (ops.conv, ops.linear, ops.matmul, ops.add, ops.sub, ops.mul, ops.concat)
_NORM_PASSES = (ops.slice_,)


def hoist(graph: fx.Graph) -> None:
    """Move every clamp and batch norm as far up as it pays; the computed function stays."""
    for node in list(graph.nodes):
        if is_clamp(node):
            _hoist(graph, node, _CLAMP_PASSES)
        elif node.target is ops.batch_norm:
            _hoist(graph, node, _NORM_PASSES)


def is_clamp(node: fx.Node) -> bool:
    """Whether a node is a relu or clip, which the bounds of a requantisation compute."""
    return node.target is ops.elementwise and str(node.kwargs["function"]) in ops.CLAMPS


def _hoist(graph: fx.Graph, node: fx.Node, passes: tuple[object, ...]) -> None:
    """Move one node above its chain of single-use movements if that ends at an absorber."""
    chain: list[fx.Node] = []
    top = _input(node)
    while top.target in passes and len(top.users) == 1 and _keeps_channels(top, node):
        chain.append(top)
        top = _input(top)
    if len(top.users) != 1:
        return
    if top.target is ops.interleave:
        _split_over_phases(graph, node, top)
    elif chain and _absorbs(top, node):
        node.replace_all_uses_with(_input(node))
        node.replace_input_with(_input(node), top)
        top.replace_all_uses_with(node, delete_user_cb=lambda user: user is not node)
        top.append(node)
        _operands_to_front(graph, node)
        _reshape_meta(node, top)


def _absorbs(top: fx.Node, node: fx.Node) -> bool:
    """Whether a node takes the hoisted one into its rounding."""
    if node.target is ops.batch_norm:
        return top.target is ops.conv
    return top.target in _CLAMP_ENDS or top.target is ops.batch_norm


def _keeps_channels(movement: fx.Node, node: fx.Node) -> bool:
    """Whether channel axis 1 survives a movement, where the hoisted node needs it."""
    return bool(node.target is not ops.batch_norm or movement.kwargs["dim"] != 1)


def _split_over_phases(graph: fx.Graph, node: fx.Node, interleave: fx.Node) -> None:
    """Apply the node to each phase of an interleave; movements behind it stay where they are."""
    phases = []
    _operands_to_front(graph, node)
    for phase in interleave.args:
        if not isinstance(phase, fx.Node):
            continue
        with graph.inserting_after(phase):
            copy = graph.create_node(
                "call_function",
                node.target,
                (phase, *node.args[1:]),
                dict(node.kwargs),
                name=f"{phase.name}_{'norm' if node.target is ops.batch_norm else 'clamp'}",
            )
        copy.meta.update(node.meta)
        _reshape_meta(copy, phase)
        phases.append(copy)
    end = _input(node)
    interleave.args = tuple(phases)
    node.replace_all_uses_with(end)
    graph.erase_node(node)


def _operands_to_front(graph: fx.Graph, node: fx.Node) -> None:
    """Put the attributes that a moved node reads before every computing node."""
    front = next(n for n in graph.nodes if n.op not in ("placeholder", "get_attr"))
    for operand in node.all_input_nodes:
        if operand.op == "get_attr":
            front.prepend(operand)


def _reshape_meta(node: fx.Node, source: fx.Node) -> None:
    for key in ("shape", "grown"):
        node.meta[key] = source.meta[key]


def _input(node: fx.Node) -> fx.Node:
    source = node.args[0]
    if not isinstance(source, fx.Node):
        raise TypeError(f"{node.name} has no input node")
    return source
