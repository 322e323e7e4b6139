# SPDX-License-Identifier: Apache-2.0
"""A canonical network that trains: live parameters, live normalisation, a form for every layer.

Every fx node is executed by its own canonical function, except that

- a layer's node is computed by its `LayerForm`;
- a `batch_norm` uses the statistics of the batch while it trains, and keeps running ones;
- the last node of each value is rounded to the value's format, at the widths that a `Widths`
  object says, and narrowed for each reader as the integer form does.

Ranges follow the training: while it runs, each value's extremes are averaged over batches. The
calibrated sign stays: a value that was never negative keeps zero as its least code, so that an
operator that was offered on it stays right.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F  # noqa: N812  (the name that PyTorch's own documents use)

from enos_compiler.ir.formats import ValueFormat
from enos_compiler.ir.network import Layer, Network, Vector
from enos_compiler.ir.ops import op_name
from enos_compiler.operators.quantize_network import is_plain_sum
from enos_compiler.search.forms import Call, FloatForm, LayerForm
from enos_compiler.search.parallel import batch_moments, extremes_of, is_parallel
from enos_compiler.search.rounding import (
    Extremes,
    is_large,
    norm_rounded,
    rounded,
    statistics_of,
)
from enos_compiler.semantics.formats import format_at, grid_source

FOLLOWED = 4
"""Ranges follow one batch in so many, with a momentum to match."""
MOMENTUM = 0.1
"""Weight of a new batch in running statistics and ranges; PyTorch's default for batch norms."""


def fastest(tensor: Tensor) -> Tensor:
    """Return images and their kernels with the channels last in memory, others as they are."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


class Widths(Protocol):
    """At which widths values are stored and read; probabilities where it is not decided."""

    def stored(self, value: str) -> Mapping[int, float | Tensor]:
        """Return the probability of each width that `value` may have; empty for float."""

    def read(self, node: Vector, value: str) -> int | None:
        """Return the width at which a vector operation reads; None for as it is stored."""


class FloatWidths:
    """Nothing is rounded."""

    def stored(self, value: str) -> Mapping[int, float | Tensor]:  # noqa: ARG002
        """Return no width."""
        return {}

    def read(self, node: Vector, value: str) -> int | None:  # noqa: ARG002
        """Return that values are read as they are."""
        return None


class NetworkModule(nn.Module):
    """The network as a module of PyTorch.

    Args:
        network: canonical and calibrated; it is left as it is.
        forms: what computes each layer; float where a layer is missing.
        widths: at which widths values are stored.
    """

    def __init__(
        self,
        network: Network,
        forms: Mapping[str, LayerForm] | None = None,
        widths: Widths | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.forms = dict(forms or {})
        self.widths: Widths = widths or FloatWidths()
        self.freeze_norms = False
        """Keep running statistics and use them while training, as the compiled network will."""
        self.names = {n: n.replace(".", "/") for n, _ in _tensors(network.graph)}
        for name, tensor in _tensors(network.graph):
            fresh = fastest(tensor.detach().clone())
            if isinstance(tensor, nn.Parameter) and fresh.is_floating_point():
                self.register_parameter(self.names[name], nn.Parameter(fresh, tensor.requires_grad))
            else:
                self.register_buffer(self.names[name], fresh)
        self._values = _rounded_values(network)
        self._rows = {name: row for row, name in enumerate(self._values)}
        ranges = [network.values[name].range or (0.0, 0.0) for name in self._values]
        self.ranges: Tensor
        self.register_buffer("ranges", torch.tensor(ranges, dtype=torch.float64).view(-1, 2))
        self.passes: Tensor
        self.register_buffer("passes", torch.tensor(0))
        self._follows = False
        self._unsigned = [low >= 0 for low, _ in ranges]
        self._floors = [_is_relu(network, name) for name in self._values]
        self._merged = {
            name for name, row in self._rows.items() if self._floors[row] and self._unsigned[row]
        }
        self._behind_norms = _values_behind_norms(network, self._rows, self._merged)
        self._settled: set[str] = set()
        """Values that this pass has rounded together with the norm before them."""
        self._copies: dict[tuple[str, int], Tensor] = {}
        self._ranges_now: list[list[float]] = []
        self._formats: dict[tuple[str, int], ValueFormat] = {}
        """Of the ranges as they are now."""
        self._fx_nodes = {node.name: node for node in network.graph.graph.nodes}

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run the network on a batch; returns what the model returns, as a tensor or a tuple."""
        self._copies.clear()
        self._settled.clear()
        ranges = self.ranges.tolist()
        if ranges != self._ranges_now:
            self._ranges_now = ranges
            self._formats.clear()
        self._follows = self.training and int(self.passes) % FOLLOWED == 0
        if self.training:
            self.passes += 1
        found: dict[str, Any] = {}
        given = (fastest(x) for x in inputs)
        for node in self.network.graph.graph.nodes:
            if node.op == "placeholder":
                found[node.name] = self._settle(node.name, next(given))
            elif node.op == "get_attr":
                found[node.name] = self._settle(node.name, self._tensor(str(node.target)))
            elif node.op == "output":
                return fx.node.map_arg(node.args[0], lambda n: found[n.name])  # type: ignore[no-any-return]
            else:
                found[node.name] = self._settle(node.name, self._execute(node, found))
        raise ValueError("the graph has no output")

    def first_not_finite(self, inputs: Tensor) -> str | None:
        """Return the first layer whose output has an infinite or undefined entry, or None."""
        found: list[str] = []
        forms = self.forms

        def watch(name: str, form: LayerForm) -> LayerForm:
            def compute(call: Call) -> Tensor:
                output = form(call)
                if not bool(torch.isfinite(output).all()):
                    found.append(name)
                return output

            return compute

        float_form = FloatForm()
        self.forms = {n: watch(n, forms.get(n, float_form)) for n in self.network.layers}
        try:
            self(inputs)
        finally:
            self.forms = forms
        return found[0] if found else None

    def format_of(self, value: str, bits: int) -> ValueFormat:
        """Return the format that `value` has at `bits`, by the ranges as they are now."""
        if (value, bits) not in self._formats:
            low, high = self._ranges_now[self._rows[value]]
            self._formats[value, bits] = format_at(self.network, value, bits, (low, high))
        return self._formats[value, bits]

    def write_back(self) -> Network:
        """Return a copy of the network with the parameters, statistics and ranges of now."""
        graph = copy.deepcopy(self.network.graph)
        with torch.no_grad():
            for name, tensor in _tensors(graph):
                tensor.copy_(self._tensor(name))
        ranges = self.ranges.tolist()
        values = {
            name: replace(self.network.values[name], range=(low, high))
            for name, (low, high) in zip(self._values, ranges, strict=True)
        }
        changed = replace(self.network, graph=graph).with_values(values)
        return _spread_ranges(changed, set(self._values))

    def _tensor(self, name: str) -> Tensor:
        return getattr(self, self.names[name])  # type: ignore[no-any-return]

    def _execute(self, node: fx.Node, found: Mapping[str, Any]) -> Tensor:
        args: Any = fx.node.map_arg(node.args, lambda n: found[n.name])
        compute: Any = node.target
        if node.name in self.network.layers:
            return self._layer(self.network.layers[node.name], node, args)
        if op_name(compute) == "batch_norm":
            return self._batch_norm(node, args)
        vector = self.network.vectors.get(node.name)
        if vector is None and node.name in self._merged and self.widths.stored(node.name):
            return args[0]  # type: ignore[no-any-return]  # rounding to codes >= 0 is the ReLU
        if vector is not None:
            args = self._narrowed(vector, node, args)
        return compute(*args, **node.kwargs)  # type: ignore[no-any-return]

    def _layer(self, layer: Layer, node: fx.Node, args: tuple[Any, ...]) -> Tensor:
        compute: Any = node.target
        if layer.weight is None:
            operands, weight, bias = args, None, None
        else:
            operands, weight = args[:1], args[1]
            bias = args[2] if len(args) > 2 else None
        stored = dict(zip(layer.inputs, operands, strict=True))
        call = Call(
            layer=layer,
            product=lambda *tensors: compute(*tensors, **node.kwargs),
            attributes=node.kwargs,
            inputs=operands,
            weight=weight,
            bias=bias,
            gain_of=lambda: self._gain(layer),
            read=lambda value, bits: self._copy(value, bits, stored[value]),
            read_mixed=lambda value, shares: self._mixed_copies(value, shares, stored[value]),
            read_format=self._read_format,
        )
        return self.forms.get(layer.name, FloatForm())(call)

    def _gain(self, layer: Layer) -> Tensor | None:
        if layer.norm is None:
            return None
        node = self._fx_nodes[layer.norm]
        _, _, var, weight, _ = node.args
        sigma = torch.sqrt(self._tensor(str(var.target)) + float(node.kwargs["eps"]))
        scale = self._tensor(str(weight.target)) if weight is not None else torch.ones_like(sigma)
        return (scale / sigma).detach()

    def _batch_norm(self, node: fx.Node, args: tuple[Any, ...]) -> Tensor:
        x, mean, var, weight, bias = args
        live = self.training and not self.freeze_norms
        eps = float(node.kwargs["eps"])  # type: ignore[arg-type]
        if live and is_parallel():
            return _parallel_batch_norm(x, mean, var, weight, bias, eps)
        value = self._behind_norms.get(node.name)
        stored = {} if value is None else self.widths.stored(value)
        affine = weight is not None and bias is not None
        if not live or value is None or not stored or not affine or not is_large(x):
            return F.batch_norm(x, mean, var, weight, bias, live, MOMENTUM, eps)
        now = statistics_of(x, extremes=self._is_followed(value))
        count = x.numel() // x.shape[1]
        mean.lerp_(torch.from_numpy(now.mean).to(mean.dtype), MOMENTUM)
        unbiased = torch.from_numpy(now.variance * (count / (count - 1)))
        var.lerp_(unbiased.to(var.dtype), MOMENTUM)

        def formats_of(extremes: Callable[[], Extremes]) -> list[ValueFormat]:
            if self._is_followed(value):
                self._follow(self._rows[value], *extremes())
            return [self.format_of(value, bits) for bits in stored]

        self._settled.add(value)
        shares = list(stored.values())
        return norm_rounded(x, weight, bias, shares, now, eps, formats_of)

    def _narrowed(self, vector: Vector, node: fx.Node, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments with every rounded value as the vector operation reads it."""
        narrowed = []
        for argument, tensor in zip(node.args, args, strict=True):
            name = argument.name if isinstance(argument, fx.Node) else ""
            bits = self.widths.read(vector, name) if name in vector.inputs else None
            narrowed.append(tensor if bits is None else self._copy(name, bits, tensor))
        return tuple(narrowed)

    def _settle(self, name: str, tensor: Tensor) -> Tensor:
        """Round the tensor of node `name` if a value ends there."""
        if name not in self._rows or name in self._settled:
            return tensor
        if self._is_followed(name):
            self._follow(
                self._rows[name], *(float(end) for end in _flat(tensor.detach()).aminmax())
            )
        stored = self.widths.stored(name)
        if not stored:
            return tensor
        formats = [self.format_of(name, bits) for bits in stored]
        return rounded(tensor, list(stored.values()), formats)

    def _is_followed(self, value: str) -> bool:
        """Return whether this pass moves the value's range."""
        return self._follows and self.network.values[value].kind == "internal"

    def _follow(self, row: int, low: float, high: float) -> None:
        """Move a value's range towards the extremes of a batch."""
        if self._unsigned[row]:
            low, high = 0.0 if self._floors[row] else max(low, 0.0), max(high, 0.0)
        ends = torch.tensor([low, high], dtype=torch.float64)
        now = torch.stack(extremes_of(*ends))
        if not bool(torch.isfinite(now).all()):
            return  # the loss will say so, and where it began
        self.ranges[row].lerp_(now, 1 - (1 - MOMENTUM) ** FOLLOWED)
        self._ranges_now[row] = self.ranges[row].tolist()
        self._formats.clear()

    def _copy(self, value: str, bits: int, stored: Tensor) -> Tensor:
        """Return what a reader of `bits` gets of a stored value; copies are made once a batch."""
        if bits >= self._widest(value):
            return stored
        if (value, bits) not in self._copies:
            self._copies[value, bits] = rounded(stored, [1.0], [self._read_format(value, bits)])
        return self._copies[value, bits]

    def _mixed_copies(self, value: str, shares: Mapping[int, Tensor], stored: Tensor) -> Tensor:
        """Return the sum of shares times what readers of several widths get of a stored value."""
        widest = self._widest(value)
        formats = [None if bits >= widest else self._read_format(value, bits) for bits in shares]
        return rounded(stored, list(shares.values()), formats)

    def _widest(self, value: str) -> int:
        """Return the widest codes that a value is stored in; 0 where it is not rounded."""
        source = grid_source(self.network, value)
        return max(self.widths.stored(source), default=0) if source in self._rows else 0

    def _read_format(self, value: str, bits: int) -> ValueFormat:
        """Return the format in which a reader of `bits` gets a value."""
        source = grid_source(self.network, value)
        return self.format_of(source, max(self.widths.stored(source))).narrowed(bits)


def _parallel_batch_norm(
    x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Normalise by the statistics of the whole batch, which several processes share."""
    now, variance, count = batch_moments(x)
    with torch.no_grad():
        mean.lerp_(now.detach(), MOMENTUM)
        var.lerp_(variance.detach() * (count / (count - 1)), MOMENTUM)
    axes = (1, -1, *(1,) * (x.dim() - 2))
    factor = (variance + eps).rsqrt()
    if weight is not None:
        factor = factor * weight
    y = (x - now.view(axes)) * factor.view(axes)
    return y if bias is None else y + bias.view(axes)


def _values_behind_norms(
    network: Network, values: Collection[str], merged: Collection[str]
) -> dict[str, str]:
    """Return the value that ends at each batch norm, or at a ReLU of codes >= 0 behind it alone."""
    found = {}
    for node in network.graph.graph.nodes:
        if node.op != "call_function" or op_name(node.target) != "batch_norm":
            continue
        if node.name in values:
            found[node.name] = node.name
        elif [reader.name in merged for reader in node.users] == [True]:
            found[node.name] = next(iter(node.users)).name
    return found


def _is_relu(network: Network, value: str) -> bool:
    """Return whether a value ends at a ReLU fused behind its node: its least is zero."""
    node = network.producer(value)
    if node is None or node.activation != value or node.name == value:
        return False
    found = next(n for n in network.graph.graph.nodes if n.name == value)
    return bool(found.kwargs.get("function") == "relu")


def _flat(tensor: Tensor) -> Tensor:
    """Return all elements along one axis, in memory order where that saves a copy."""
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(-1)


def _rounded_values(network: Network) -> tuple[str, ...]:
    """Return the values with a format of their own."""
    sums = {node.output for node in network.nodes() if is_plain_sum(network, node)}
    return tuple(
        name
        for name, value in network.values.items()
        if value.dtype == "float32" and name not in sums and grid_source(network, name) == name
    )


def _spread_ranges(network: Network, known: set[str]) -> Network:
    """Give values that only moved codes the range of their source."""
    values = {
        name: replace(value, range=network.values[grid_source(network, name)].range)
        for name, value in network.values.items()
        if name not in known and grid_source(network, name) in known
    }
    return network.with_values(values)


def _tensors(graph: nn.Module) -> list[tuple[str, Tensor]]:
    """Return parameters, then buffers, by qualified name; a shared tensor under each name."""
    return [
        *graph.named_parameters(remove_duplicate=False),
        *graph.named_buffers(remove_duplicate=False),
    ]
