# SPDX-License-Identifier: Apache-2.0
"""Runs the canonical graph on real inputs and keeps the range of every value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from enos_compiler.errors import FrontendError
from enos_compiler.frontend.annotate import attribute_names
from enos_compiler.frontend.batching import with_rows
from enos_compiler.frontend.data import Data
from enos_compiler.frontend.lower_elementwise import MASKED
from enos_compiler.ir.network import Network, Vector

if TYPE_CHECKING:
    from enos_compiler.frontend.user import UserModel

Range = tuple[float, float]

ROWS_AT_ONCE = 32
"""Entries of a batch that are run together: enough to be fast, few enough to fit in memory."""

EXAMPLES = 256
"""Most inputs that are run at once where they need not fit a batch."""

MASK_LIMIT = MASKED / 10
"""Constants at or below it hide scores of attention."""

MASK_MARGIN = 8.0
"""How far below the least visible score a hidden one is kept: exp(-8) is below half of 1/256.

A hidden score needs no range of its own: saturating at the low end of its value's codes, it still
gets less than half a step of an 8-bit probability.
"""


def calibrate(network: Network, batches: Iterable[Sequence[Tensor]]) -> Network:
    """Return the network with the least and greatest real number of each value.

    Only the ends of fused chains are values. Integer values carry no range. Scores behind an
    attention mask count where they are visible, with `MASK_MARGIN` below for the hidden ones.

    Args:
        network: canonical.
        batches: inputs, each tuple of one leading extent.

    Raises:
        FrontendError: a value holds NaN or infinity.
    """
    recorder = _Recorder(network)
    with torch.no_grad():
        for inputs in batches:
            for rows in _fitting(network, inputs):
                recorder.run(*rows)
    return network.with_values(
        {
            name: replace(value, range=recorder.ranges.get(name))
            for name, value in network.values.items()
        }
    )


def example_batches(network: Network) -> Iterator[tuple[Tensor, ...]]:
    """Yield the example inputs at the batch they came in."""
    yield network.example_inputs


def image_batches(data: Data, images: int, batch_size: int = 32) -> Iterator[tuple[Tensor, ...]]:
    """Yield up to `images` training inputs of the user's data."""
    for inputs, _ in data.batches("train", batch_size=batch_size, limit=images):
        yield (inputs,)


def real_inputs(network: Network, user: UserModel | None, images: int) -> tuple[Tensor, ...]:
    """Return inputs at once: training images where they are wanted and given, else the examples.

    Args:
        network: fixes the batch, where it is fixed: one run of it is returned.
        user: gives data; None for a saved network.
        images: most training images; 0 for the example inputs.
    """
    data = user.data() if user is not None and images else None
    if data is not None and data.dataset("train") is not None and len(network.inputs) == 1:
        batches = image_batches(data.for_network(network), images)
        inputs = tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
    else:
        inputs = network.example_inputs
    if network.batch_is_symbolic:
        return tuple(tensor[:EXAMPLES] for tensor in inputs)
    return tuple(
        tensor[: network.values[name].shape[0]] if network.values[name].shape else tensor
        for name, tensor in zip(network.inputs, inputs, strict=True)
    )


def _fitting(network: Network, inputs: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """Yield inputs in runs that the graph takes: of any length, or of the compiled batch."""
    leading = inputs[0].shape[0] if inputs[0].dim() else 0
    size = network.batch
    if leading == size or not leading:
        yield tuple(inputs)
        return
    step = ROWS_AT_ONCE if network.batch_is_symbolic else size
    for start in range(0, leading, step):
        rows = tuple(x[start : start + step] for x in inputs)
        yield rows if network.batch_is_symbolic else tuple(with_rows(x, size) for x in rows)


class _Recorder(fx.Interpreter):
    """Runs the graph node by node and widens the ranges of its values."""

    def __init__(self, network: Network) -> None:
        super().__init__(network.graph, garbage_collect_values=True)
        self.ranges: dict[str, Range] = {}
        self._network = network
        self._masks = _mask_values(network)
        for name, attribute in attribute_names(network).items():
            self._widen(name, network.tensor(attribute).detach(), None)

    def run_node(self, n: fx.Node) -> Any:
        """Compute a node; record it if it is a value."""
        result = super().run_node(n)
        if n.name in self._network.values and n.op != "get_attr":
            mask = self._masks.get(n.name)
            self._widen(n.name, result, None if mask is None else self._network.tensor(mask))
        return result

    def _widen(self, name: str, tensor: Tensor, mask: Tensor | None) -> None:
        """Widen the range of a value by a tensor, hidden elements left out."""
        if not tensor.is_floating_point():
            return
        if not bool(tensor.isfinite().all()):
            raise self._not_finite(name, tensor)
        seen, margin = tensor, 0.0
        if mask is not None:
            visible = (mask > MASK_LIMIT).expand_as(tensor)
            seen, margin = tensor[visible], MASK_MARGIN
        if not seen.numel():
            seen = torch.zeros(1)
        low, high = float(seen.min()) - margin, float(seen.max())
        before = self.ranges.get(name, (low, high))
        self.ranges[name] = (min(before[0], low), max(before[1], high))

    def _not_finite(self, name: str, tensor: Tensor) -> FrontendError:
        producer = self._network.producer(name)
        origin = producer.origin if producer is not None else ""
        node = next(n for n in self.module.graph.nodes if n.name == name)  # type: ignore[union-attr]
        kind = "NaN" if bool(tensor.isnan().any()) else "infinity"
        where = f" (module {origin})" if origin else ""
        return FrontendError(
            f"value `{name}`{where} holds {kind} while calibrating",
            place=node.meta.get("place"),
            remedy="check the weights and the calibration inputs, or bound what overflows",
        )


def _mask_values(network: Network) -> dict[str, str]:
    """Return, by value name, the attribute that hides some of its elements by a large negative."""
    attributes = attribute_names(network)
    hiding = {
        name: attribute
        for name, attribute in attributes.items()
        if network.tensor(attribute).is_floating_point()
        and bool((network.tensor(attribute) <= MASK_LIMIT).any())
    }
    masked: dict[str, str] = {}
    for node in network.nodes():
        if isinstance(node, Vector) and node.op == "add":
            for value in node.inputs:
                attribute = hiding.get(value) or masked.get(value)
                if attribute is not None:
                    masked[node.output] = attribute
    return masked
