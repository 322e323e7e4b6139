# SPDX-License-Identifier: Apache-2.0
"""Reads an ONNX file and refuses what cannot become a network, before anything runs.

Nothing in a file is executed: a file is data, its tensors are read by the onnx package, external
data from the file's own folder alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enos_compiler.errors import FrontendError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

OLDEST_OPSET = 13
"""Older ones keep axes, pads and bounds in attributes; onnx.version_converter lifts them."""

LARGEST_TENSOR = 2**30
"""Elements of one tensor: a damaged extent must not fill the memory."""

_QUANTISED = (
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv"),
    *("QLinearMatMul", "ConvInteger", "MatMulInteger"),
)
_RECURRENT = ("LSTM", "GRU", "RNN")
_DEFAULT_DOMAIN = ("", "ai.onnx")


def read_onnx(path: Path) -> ModelProto:
    """Return a float network with its local functions inlined and its tensors in memory.

    Raises:
        FrontendError: the file is missing, damaged, too old, quantised, recurrent, or calls
            functions of other domains.
    """
    import onnx

    if not path.is_file():
        raise FrontendError(
            "this file does not exist", place=str(path), remedy="give the path of an ONNX file"
        )
    try:
        model = onnx.load_model(path)
    except Exception as error:
        raise FrontendError(
            f"this is no readable ONNX file: {_first_line(error)}",
            place=str(path),
            remedy="export the network again; tensors kept in other files must lie beside it",
        ) from error
    if not _is_text(model):
        raise FrontendError(
            "this is no readable ONNX file: a name in it is no UTF-8 text",
            place=str(path),
            remedy="export the network again",
        )
    if not model.graph.node:
        raise FrontendError(
            "this is no ONNX network: it holds no operation",
            place=str(path),
            remedy="export the network again",
        )
    _check_opset(model, path)
    if model.functions:
        model = _inlined(model, path)
    for node in model.graph.node:
        _check_node(node, path)
    _check_whole(model, path)
    return model


def _is_text(message: Any) -> bool:
    """Whether every string of a message is text: protobuf hands damaged ones out as bytes."""
    for field, value in message.ListFields():
        several = value if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
        if field.type == field.TYPE_STRING and not all(isinstance(one, str) for one in several):
            return False
        if field.type == field.TYPE_MESSAGE and not all(_is_text(one) for one in several):
            return False
    return True


def node_label(node: NodeProto) -> str:
    """Return how messages name a node: its name, or else its first result."""
    name = node.name or next(iter(node.output), "")
    return f"node `{name}` ({node.op_type})"


def opset_of(model: ModelProto) -> int:
    """Return the version of ONNX's own operations that a file asks for; 0 where it names none."""
    return max((o.version for o in model.opset_import if o.domain in _DEFAULT_DOMAIN), default=0)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def _check_opset(model: ModelProto, path: Path) -> None:
    import onnx

    newest = onnx.defs.onnx_opset_version()
    version = opset_of(model)
    if OLDEST_OPSET <= version <= newest:
        return
    remedy = (
        f"export with opset {OLDEST_OPSET} or later, or run onnx.version_converter"
        if version < OLDEST_OPSET
        else "install a newer onnx package"
    )
    raise FrontendError(
        f"the file's opset is {version}, read are {OLDEST_OPSET} to {newest}",
        place=str(path),
        remedy=remedy,
    )


def _inlined(model: ModelProto, path: Path) -> ModelProto:
    """Return the model with calls of its own functions replaced by their nodes."""
    from onnx import inliner

    try:
        return inliner.inline_local_functions(model)
    except Exception as error:
        raise FrontendError(
            f"its local functions cannot be inlined: {_first_line(error)}",
            place=str(path),
            remedy="export the network without functions",
        ) from error


def _check_node(node: NodeProto, path: Path) -> None:
    """Refuse what is quantised, recurrent or foreign, by name."""
    place = f"{path}: {node_label(node)}"
    if node.op_type in _QUANTISED or (node.domain == "com.microsoft" and "Q" in node.op_type[:2]):
        raise FrontendError(
            "the network is quantised already; widths and scales are what the compiler chooses",
            place=place,
            remedy="give the float network that it was made from",
        )
    if node.op_type in _RECURRENT:
        raise FrontendError(
            f"recurrent layer `{node.op_type}` is not supported: its state loops through time",
            place=place,
            remedy="write the steps out with MatMul over a fixed length, or use convolution or "
            "attention",
        )
    if node.domain not in _DEFAULT_DOMAIN:
        raise FrontendError(
            f"operation `{node.op_type}` is of domain `{node.domain}`, which is not known",
            place=place,
            remedy="export with operations of ONNX itself",
        )


def _check_whole(model: ModelProto, path: Path) -> None:
    """Run onnx's own checker with shape inference; bound what a tensor may hold."""
    import onnx

    try:
        if model.ByteSize() < onnx.checker.MAXIMUM_PROTOBUF:
            onnx.checker.check_model(model, full_check=True)
            model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:
        raise FrontendError(
            f"the onnx checker refuses it: {_first_line(error)}",
            place=str(path),
            remedy="export the network again",
        ) from error
    for name, extents in _extents(model):
        if prod(extents) > LARGEST_TENSOR:
            raise FrontendError(
                f"tensor `{name}` would hold {prod(extents):,} elements, more than "
                f"{LARGEST_TENSOR:,}",
                place=str(path),
                remedy="export the network again, at a smaller size if it is meant so",
            )


def _extents(model: ModelProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the known extents of every tensor; free ones are left out."""
    graph: Any = model.graph
    for info in (*graph.input, *graph.value_info, *graph.output):
        shape = info.type.tensor_type.shape
        yield info.name, tuple(d.dim_value for d in shape.dim if d.dim_value > 0)
    for tensor in graph.initializer:
        yield tensor.name, tuple(tensor.dims)
