# SPDX-License-Identifier: Apache-2.0
"""Kernel extent as a choice: smaller kernels lie in the middle of the greatest one.

While extents are open, a convolution holds the greatest kernel that is offered, the user's own with
zeros around it, and each of its choices names the extent that it keeps. `fitted` cuts every kernel
to its assigned extent, after which a layer is an ordinary one again. Only convolutions that keep
their resolution at any extent take part: one odd extent along all axes, padded by half of it.

Source: NAX, arXiv 2106.12125 (kernel and crossbar size searched together; form reconstructed).
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from enos_compiler.ir.choice import Choice
from enos_compiler.ir.network import Layer, Network
from enos_compiler.ir.shape import LayerShape

if TYPE_CHECKING:
    from torch import Tensor

KERNEL = "kernel"
"""The option of a choice that says which kernel extent it keeps."""


def extent_of(choice: Choice) -> int:
    """Return the kernel extent that a choice keeps; 0 for the layer's own."""
    return dict(choice.options).get(KERNEL, 0)


def with_extent(choice: Choice, extent: int) -> Choice:
    """Return a choice that keeps a kernel extent; 0 takes the option away."""
    options = {name: value for name, value in choice.options if name != KERNEL}
    if extent:
        options[KERNEL] = extent
    return replace(choice, options=tuple(sorted(options.items())))


def as_core_sees(layer: Layer, choice: Choice) -> tuple[Layer, Choice]:
    """Return a layer with the kernel that a choice keeps, and the choice as its core offered it."""
    extent = extent_of(choice)
    if not extent:
        return layer, choice
    return replace(layer, shape=shape_at(layer.shape, extent)), with_extent(choice, 0)


def own_extent(layer: Layer) -> int:
    """Return the extent that the user's model has, whose choices come first; 0 where none is."""
    return extent_of(layer.choices[0]) if layer.choices else 0


def shape_at(shape: LayerShape, extent: int) -> LayerShape:
    """Return the shape with another kernel extent and the padding that keeps the resolution."""
    rows, columns = shape.dilation
    above = rows * (extent - 1) // 2
    left = columns * (extent - 1) // 2 if shape.s > 1 else 0
    return replace(
        shape,
        r=extent,
        s=extent if shape.s > 1 else 1,
        padding=(above, left, above, left),
    )


def takes_part(network: Network, layer: Layer) -> bool:
    """Tell whether a layer's kernel may change: its resolution stays, its weights are its alone."""
    shape = layer.shape
    users = sum(other.weight_key == layer.weight_key for other in network.layers.values())
    return (
        layer.op == "conv"
        and layer.weight is not None
        and users == 1
        and shape.r > 1
        and shape.r % 2 == 1
        and shape == shape_at(shape, shape.r)
    )


def grown(network: Network, extents: Mapping[str, int]) -> Network:
    """Return the network with greater kernels, zeros around the user's; it computes the same.

    Args:
        network: canonical.
        extents: by layer.
    """
    from torch.nn.functional import pad

    greater = {n: e for n, e in extents.items() if e > network.layers[n].shape.r}

    def padded(layer: Layer, weight: Tensor) -> Tensor:
        margin = (greater[layer.name] - layer.shape.r) // 2
        return pad(weight, (margin, margin) * (weight.dim() - 2))

    return _with_kernels(network, greater, padded)


def fitted(network: Network) -> Network:
    """Return an assigned network whose kernels have their assigned extents.

    Choices of other extents are dropped and the option is taken from those that stay.
    """
    wanted = {
        name: extent
        for name, layer in network.layers.items()
        if layer.choice is not None and (extent := extent_of(layer.choice))
    }

    if not wanted:
        return network

    def cut(layer: Layer, weight: Tensor) -> Tensor:
        return inside(weight, wanted[layer.name])[0].contiguous()

    cut_down = _with_kernels(network, wanted, cut)
    layers = {name: _at_one_extent(cut_down.layers[name], wanted[name]) for name in wanted}
    return cut_down.with_layers(layers)


def inside(weight: Tensor, kernel: int) -> tuple[Tensor, tuple[int, ...]]:
    """Return the middle of a kernel of (M, C, R, S) and the margins that `pad` puts around it."""
    extents = weight.shape[2:]
    if not kernel or all(extent <= kernel for extent in extents):
        return weight, ()
    sides = [max(0, (extent - kernel) // 2) for extent in extents]
    for axis, (side, extent) in enumerate(zip(sides, extents, strict=True), start=2):
        weight = weight.narrow(axis, side, extent - 2 * side)
    return weight, tuple(side for side in reversed(sides) for _ in range(2))


def _at_one_extent(layer: Layer, extent: int) -> Layer:
    rows = [row for row, choice in enumerate(layer.choices) if extent_of(choice) == extent]
    return replace(
        layer,
        choices=tuple(with_extent(layer.choices[row], 0) for row in rows),
        costs=tuple(layer.costs[row] for row in rows),
        programming=tuple(layer.programming[row] for row in rows),
        scores=None if layer.scores is None else tuple(layer.scores[row] for row in rows),
        choice=None if layer.choice is None else with_extent(layer.choice, 0),
    )


def _with_kernels(network: Network, extents: Mapping[str, int], change: Any) -> Network:
    """Return the network with other kernels in graph and shapes.

    Args:
        network: canonical; it stays as it is.
        extents: by layer.
        change: (layer, weight) -> its new weight.
    """
    if not extents:
        return network
    from torch.nn import Parameter

    graph = copy.deepcopy(network.graph)
    layers = dict(network.layers)
    for node in graph.graph.nodes:
        if node.name not in extents:
            continue
        layer = layers[node.name]
        shape = shape_at(layer.shape, extents[node.name])
        owner, _, name = str(layer.weight).rpartition(".")
        weight = change(layer, network.tensor(str(layer.weight)).detach())
        setattr(graph.get_submodule(owner), name, Parameter(weight.clone()))
        axes = weight.dim() - 2
        node.kwargs = {**node.kwargs, "padding": shape.padding[:axes] + shape.padding[2:][:axes]}
        layers[node.name] = replace(layer, shape=shape)
    graph.recompile()
    return replace(network.with_layers(layers), graph=graph)


def check_extents(extents: Collection[int]) -> None:
    """Refuse kernel extents that have no middle.

    Raises:
        UsageError: an extent is even or not positive.
    """
    from enos_compiler.errors import UsageError

    for extent in extents:
        if extent < 1 or extent % 2 == 0:
            raise UsageError(
                f"{extent} is no odd kernel extent: a smaller kernel lies in the middle",
                place="kernels",
                remedy="kernels=3|5|7",
            )
