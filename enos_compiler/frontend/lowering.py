# SPDX-License-Identifier: Apache-2.0
"""The builder of canonical graphs and the table of lowerings, one function per torch call.

A lowering takes the builder and the call's arguments, nodes of the canonical graph in place of
tensors, and returns the node (or nodes) that compute the same. Its parameters carry torch's names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn

from enos_compiler.errors import FrontendError, PassError
from enos_compiler.frontend.trace import place_tensor
from enos_compiler.ir import ops, result_shape

Shape = tuple[int, ...]
Lowering = Callable[..., Any]
F = TypeVar("F", bound=Lowering)

LOWERINGS: dict[str, Lowering] = {}
"""Lowerings by the name of the torch call, in-place forms under the plain name."""

LIMIT = 3.0e38
"""Stands for infinity where a clip has one bound; below the largest float32."""


def lowers(*calls: str) -> Callable[[F], F]:
    """Register a lowering under the names of torch calls."""

    def register(function: F) -> F:
        for call in calls:
            LOWERINGS[call] = function
        return function

    return register


def lowering_of(call: str) -> Lowering | None:
    """Return the lowering of a torch call; `relu_` is lowered like `relu`."""
    if call in LOWERINGS:
        return LOWERINGS[call]
    plain = call.rstrip("_") if not call.startswith("__") else call
    return LOWERINGS.get(plain)


class Builder:
    """Builds a canonical graph node by node, with the shape of each at two batches.

    meta["shape"] holds at the compiled batch, meta["grown"] at the next one; both are the same
    where the batch is fixed.

    Args:
        traced: the recorded graph; its tensors are taken over under their names.
    """

    def __init__(self, traced: fx.GraphModule) -> None:
        self.graph = fx.Graph()
        self.root = nn.Module()
        self.current: fx.Node | None = None
        """The recorded node that is being lowered."""
        self._traced = traced
        self._attributes: dict[str, fx.Node] = {}
        self._derived: dict[tuple[str, ...], fx.Node] = {}

    # -- nodes ------------------------------------------------------------------------------

    def placeholder(self, source: fx.Node) -> fx.Node:
        """Take over an input."""
        node = self.graph.placeholder(str(source.target))
        grown = source.meta.get("grown", source.meta["shape"])
        node.meta.update(
            shape=source.meta["shape"],
            grown=grown,
            dtype=source.meta["dtype"],
            place=None,
            origin="",
        )
        return node

    def attribute(self, source: fx.Node) -> fx.Node:
        """Take over a parameter, buffer or constant of the recorded graph."""
        name = str(source.target)
        node = self._hold(name, self._tensor_of(self._traced, name))
        node.meta["is_row_of_batch"] = source.meta.get("is_row_of_batch", False)
        return node

    def derive(self, source: fx.Node, what: str, change: Callable[[Tensor], Tensor]) -> fx.Node:
        """Return the attribute `<source>.<what>`, computed once from another attribute.

        Layers that share weights therefore share what is derived from them.
        """
        key = (str(source.target), what)
        if key not in self._derived:
            tensor = self.tensor(source)
            changed = change(tensor.detach()).contiguous()
            if isinstance(tensor, nn.Parameter):
                changed = nn.Parameter(changed, requires_grad=tensor.requires_grad)
            plain = what.replace(".", "_").replace("-", "minus_").replace("+", "")
            self._derived[key] = self._hold(f"{key[0]}_{plain}", changed)
        return self._derived[key]

    def constant(self, what: str, tensor: Tensor) -> fx.Node:
        """Return a new constant of the graph."""
        index = sum(1 for name in self._attributes if name.startswith(f"constant_{what}"))
        return self._hold(f"constant_{what}_{index}", tensor)

    def emit(
        self, op: str, /, *operands: Any, name: str | None = None, **attributes: Any
    ) -> fx.Node:
        """Append a call of a canonical function; find its shape by running it on no data.

        Args:
            op: name in `ops.FUNCTIONS`.
            operands: nodes, or None for an absent parameter.
            name: of the node; by default that of the user's module or call.
            attributes: keyword arguments.
        """
        return self.call(ops.FUNCTIONS[op], *operands, name=name, **attributes)

    def call(
        self,
        function: Callable[..., Tensor],
        /,
        *operands: Any,
        name: str | None = None,
        **attributes: Any,
    ) -> fx.Node:
        """Append a call of any canonical function, a registered vector operation's included."""
        source = self.current
        hint = name or (source.meta.get("hint") if source is not None else None)
        node = self.graph.create_node("call_function", function, operands, attributes, name=hint)
        shape, dtype = self._infer(function, operands, attributes, "shape")
        grown = self._infer(function, operands, attributes, "grown")[0]
        node.meta.update(shape=shape, grown=grown, dtype=dtype)
        if source is not None:
            node.meta.update(place=source.meta.get("place"), origin=source.meta.get("origin", ""))
        return node

    def reshape(self, x: fx.Node, extents: Callable[[Shape], Sequence[int]]) -> fx.Node:
        """Append a reshape whose extents follow from the input's; -1 where the batch is carried."""
        here, there = (tuple(extents(x.meta[key])) for key in ("shape", "grown"))
        shape = self.with_batch(here, there)
        return x if here == x.meta["shape"] else self.emit("reshape", x, shape=shape)

    def with_batch(self, here: Shape, there: Shape) -> Shape:
        """Return extents with -1 where they differ between two batches."""
        changed = [i for i, (a, b) in enumerate(zip(here, there, strict=True)) if a != b]
        if len(changed) > 1:
            raise self.error(
                f"the shape {here} carries the batch on {len(changed)} axes",
                "keep the batch on one axis",
            )
        return tuple(-1 if i in changed else extent for i, extent in enumerate(here))

    # -- what lowerings ask -----------------------------------------------------------------

    @staticmethod
    def is_constant(x: Any) -> bool:
        """Whether an argument is an attribute of the graph."""
        return isinstance(x, fx.Node) and x.op == "get_attr"

    def tensor(self, x: fx.Node) -> Tensor:
        """Return the tensor of an attribute."""
        return self._tensor_of(self.root, str(x.target))

    def scalar(self, x: Any) -> float | None:
        """Return the number that an argument is: a Python number or a constant of one element."""
        if isinstance(x, bool | int | float):
            return float(x)
        if self.is_constant(x) and self.tensor(x).numel() == 1:
            return float(self.tensor(x).detach())
        return None

    @staticmethod
    def axis(x: fx.Node, dim: int, extra: int = 0) -> int:
        """Return a dimension counted from the front."""
        return dim % (len(x.meta["shape"]) + extra)

    def error(self, message: str, remedy: str) -> FrontendError:
        """Return an error that names the user's line and module."""
        meta = self.current.meta if self.current is not None else {}
        origin = meta.get("origin")
        return FrontendError(
            f"{message} (module {origin})" if origin else message,
            place=meta.get("place"),
            remedy=remedy,
        )

    # -- inside -----------------------------------------------------------------------------

    def _hold(self, name: str, tensor: Tensor) -> fx.Node:
        if name not in self._attributes:
            place_tensor(self.root, name, tensor)
            node = self.graph.create_node("get_attr", name, name=name.replace(".", "_"))
            shape = tuple(tensor.shape)
            dtype = str(tensor.dtype).removeprefix("torch.")
            node.meta.update(shape=shape, grown=shape, dtype=dtype, place=None, origin="")
            self._attributes[name] = node
        return self._attributes[name]

    @staticmethod
    def _tensor_of(root: nn.Module, name: str) -> Tensor:
        target: Any = root
        for part in name.split("."):
            target = getattr(target, part)
        return target  # type: ignore[no-any-return]

    def _infer(
        self,
        function: Callable[..., Tensor],
        operands: Sequence[Any],
        attributes: dict[str, Any],
        key: str,
    ) -> tuple[Shape, str]:
        """Return shape and dtype of a call at one of the two batches."""
        rule = _rule(function, operands)
        try:
            if rule is not None:
                extents = (x.meta[key] if isinstance(x, fx.Node) else None for x in operands)
                return rule(*extents, **attributes), "float32"
            with torch.no_grad():
                result = function(*(_without_data(x, key) for x in operands), **attributes)
        except (RuntimeError, ValueError, IndexError) as error:
            shapes = [x.meta[key] for x in operands if isinstance(x, fx.Node)]
            raise PassError(
                f"{function.__name__}{attributes} does not take shapes {shapes}: {error}",
                place=str(self.current.meta.get("place") if self.current is not None else None),
                remedy="this is a defect of the lowering; report it with the model's line",
            ) from error
        return tuple(result.shape), str(result.dtype).removeprefix("torch.")


def _rule(function: Callable[..., Tensor], operands: Sequence[Any]) -> Callable[..., Shape] | None:
    """Return the shape rule of a call that computes in float32; None where torch has to tell."""
    name = ops.op_name(function)
    values = operands[1:] if name == "embedding" else operands
    types = {x.meta["dtype"] for x in values if isinstance(x, fx.Node)}
    return result_shape.RULES.get(name or "") if types == {"float32"} else None


def _without_data(x: Any, key: str) -> Any:
    """Return a node's tensor at one of the two batches, without numbers; others as they are."""
    if not isinstance(x, fx.Node):
        return x
    return torch.empty(x.meta[key], dtype=getattr(torch, x.meta["dtype"]), device="meta")
