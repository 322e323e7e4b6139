# SPDX-License-Identifier: Apache-2.0
"""An ONNX graph as a module of torch calls, which the frontend records like any user's module.

Each node is a submodule under the node's name, so that layers, messages and the report speak of
the nodes of the file. What depends on no input is computed once, when the module is made.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from enos_compiler.errors import EnosError, FrontendError, nearest
from enos_compiler.frontend.onnx_file import node_label
from enos_compiler.frontend.onnx_table import (
    OPERATIONS,
    READS_SHAPE,
    Attributes,
    OnnxInputError,
    load_operations,
)

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto


class OnnxNode(nn.Module):
    """One node: its operation's torch calls and its attributes.

    Args:
        node: of the file.
        constant: for each operand, whether no input reaches its contents.
        path: of the file, for messages.

    Raises:
        FrontendError: no such operation is known.
    """

    def __init__(self, node: NodeProto, constant: tuple[bool, ...], path: Path) -> None:
        super().__init__()
        self.place = f"{path}: {node_label(node)}"
        if node.op_type not in OPERATIONS:
            raise FrontendError(
                f"operation `{node.op_type}` is not supported",
                place=self.place,
                remedy=nearest(node.op_type, OPERATIONS),
            )
        self.operands = tuple(node.input)
        self.results = tuple(node.output)
        self._attributes = Attributes.of(node, constant)
        self._compute = OPERATIONS[node.op_type]

    def forward(self, *operands: Tensor | None) -> tuple[Tensor, ...]:
        """Return the node's results; an absent operand is None.

        Raises:
            FrontendError: the operands do not fit; names the node.
        """
        try:
            results = self._compute(self._attributes, *operands)
        except EnosError as error:
            error.place = error.place or self.place
            raise
        except OnnxInputError as error:
            raise FrontendError(str(error), place=self.place, remedy=error.remedy) from error
        except Exception as error:
            shapes = ", ".join("none" if x is None else str(tuple(x.shape)) for x in operands)
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise FrontendError(
                f"cannot be computed on operands of shapes {shapes}: {text}",
                place=self.place,
                remedy="check the node's attributes and the shapes before it",
            ) from error
        return results if isinstance(results, tuple) else (results,)


class OnnxModule(nn.Module):
    """The graph of an ONNX file, called with one tensor per graph input.

    Args:
        model: read by `read_onnx`.
        path: of the file, for messages.

    Raises:
        FrontendError: a node is not supported, or a tensor of the file is damaged.
    """

    def __init__(self, model: ModelProto, path: Path) -> None:
        super().__init__()
        load_operations()
        graph = model.graph
        known = _initializers(graph, path)
        self.input_names = tuple(i.name for i in graph.input if i.name not in known)
        self.argument_names = tuple(plain_name(name) for name in self.input_names)
        """Names of the inputs as Python's own."""
        self.output_names = tuple(o.name for o in graph.output)
        self._steps: list[OnnxNode] = []
        varying = set(self.input_names)
        for node in graph.node:
            constant = tuple(name not in varying for name in node.input)
            step = OnnxNode(node, constant, path)
            if node.op_type not in READS_SHAPE and not all(constant):
                varying.update(step.results)
            if all(name in known or not name for name in step.operands):
                with torch.no_grad():
                    results = step(*(known[n] if n else None for n in step.operands))
                known.update(zip(step.results, results, strict=False))
            else:
                self.add_module(_attribute_name(self, node.name or node.output[0]), step)
                self._steps.append(step)
        self._constants = _hold(self, known, self._steps)
        for name in self.output_names:
            if name in known:
                raise FrontendError(
                    f"output `{name}` depends on no input",
                    place=str(path),
                    remedy="leave constants out of the outputs",
                )

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the graph's outputs in their order."""
        values: dict[str, Any] = dict(zip(self.input_names, inputs, strict=True))
        values.update({name: getattr(self, held) for name, held in self._constants.items()})
        for step in self._steps:
            results = step(*(values[name] if name else None for name in step.operands))
            values.update(zip(step.results, results, strict=False))
        return tuple(values[name] for name in self.output_names)


def to_tensor(proto: TensorProto, place: str) -> Tensor:
    """Return a tensor of the file.

    Raises:
        FrontendError: it is damaged, or of a type that torch does not have.
    """
    from onnx import numpy_helper

    try:
        array = numpy_helper.to_array(proto)
        return torch.from_numpy(np.array(array))
    except Exception as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FrontendError(
            f"tensor `{proto.name}` cannot be read: {text}",
            place=place,
            remedy="export the network again, in float32",
        ) from error


def _initializers(graph: GraphProto, path: Path) -> dict[str, Tensor]:
    if graph.sparse_initializer:
        raise FrontendError(
            "sparse tensors are not supported", place=str(path), remedy="store them dense"
        )
    return {tensor.name: to_tensor(tensor, str(path)) for tensor in graph.initializer}


def _hold(module: nn.Module, known: dict[str, Tensor], steps: Sequence[OnnxNode]) -> dict[str, str]:
    """Give the module every constant that a step reads; return attribute names by tensor name.

    Finite float32 tensors are parameters; masks (which hold infinity) and integers are buffers.
    Names of one tensor share one attribute.
    """
    held: dict[int, str] = {}
    names: dict[str, str] = {}
    for step in steps:
        for name in step.operands:
            if name not in known or name in names:
                continue
            tensor = known[name]
            if id(tensor) not in held:
                attribute = _attribute_name(module, name)
                held[id(tensor)] = attribute
                if tensor.dtype == torch.float32 and bool(tensor.isfinite().all()):
                    module.register_parameter(attribute, nn.Parameter(tensor))
                else:
                    module.register_buffer(attribute, tensor)
            names[name] = held[id(tensor)]
    return names


def plain_name(name: str) -> str:
    """Return a name of the file as one that Python takes."""
    plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "tensor"
    return f"n{plain}" if plain[0].isdigit() or keyword.iskeyword(plain) else plain


def _attribute_name(module: nn.Module, name: str) -> str:
    """Return an unused attribute name made of a name in the file."""
    plain = plain_name(name)
    candidate, count = plain, 1
    while hasattr(module, candidate):
        count += 1
        candidate = f"{plain}_{count}"
    return candidate
