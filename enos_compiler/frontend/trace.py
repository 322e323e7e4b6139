# SPDX-License-Identifier: Apache-2.0
"""From a module and its example inputs to a traced network at the batch it is compiled for."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from enos_compiler.errors import FrontendError
from enos_compiler.frontend.batching import Batching, compare, rows_agree, with_rows
from enos_compiler.frontend.onnx_module import OnnxModule
from enos_compiler.frontend.record import Recording, record
from enos_compiler.frontend.user import UserModel
from enos_compiler.ir.network import Network

FEW_ROWS = 4
"""Example inputs that show whether a network's rows are independent; more show it no better."""

INPUT_TYPES = (torch.float32, torch.int64, torch.int32)
"""Numbers that a network may read; integers only as indices of an embedding."""


def trace(
    source: UserModel | nn.Module,
    example_inputs: Sequence[Tensor] | None = None,
    batch: int = 1,
) -> Network:
    """Trace a model at batch `batch`; find out whether the batch may be symbolic.

    The example inputs' leading extent is the batch they come in. The model is run at that batch,
    or on a few of its rows, and at two others: it may be rebatched if each row of the outputs
    stays the same, and the batch is symbolic if the recorded graphs differ in nothing but extents
    of the batch. Where rebatching fails the network keeps the batch it came with, and section
    `trace` says why.

    Args:
        source: the user's model, or a module.
        example_inputs: instead of the user's own; needed with a module.
        batch: leading extent to compile for.

    Raises:
        FrontendError: the model or its inputs are broken, or do what no fixed graph can hold.
    """
    if isinstance(source, UserModel):
        user = source
    else:
        user = UserModel.from_module(source, example_inputs or ())
    model = _plain_module(user.model())
    inputs = tuple(example_inputs if example_inputs is not None else user.example_inputs())
    names = _input_names(model, inputs)
    _check_weights(model)
    _check_inputs(inputs, names)
    with _evaluating(model):
        recording, batching = _record_at(model, inputs, names, batch)
    sections: dict[str, Mapping[str, Any]] = {
        "trace": {"batch": batching.batch, "note": batching.note}
    }
    if isinstance(model, OnnxModule):
        sections["onnx"] = user.section()
    return Network(
        name=user.name,
        graph=_graph_module(model, recording),
        example_inputs=inputs,
        batch=batching.batch,
        batch_is_symbolic=batching.is_symbolic,
        sections=sections,
    )


def _plain_module(model: nn.Module) -> nn.Module:
    """Return the module itself, unwrapped from torch.compile.

    Raises:
        FrontendError: a part is a TorchScript module, whose calls no recorder sees.
    """
    model = getattr(model, "_orig_mod", model)
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise FrontendError(
                f"{'module ' + name if name else 'the model'} is TorchScript",
                place=type(model).__name__,
                remedy="give the nn.Module that it was scripted from",
            )
    return model


def _record_at(
    model: nn.Module, inputs: tuple[Tensor, ...], names: tuple[str, ...], batch: int
) -> tuple[Recording, Batching]:
    """Record at the wanted batch if the network allows it, else at the batch it came with."""
    leading = {x.shape[0] if x.dim() else 0 for x in inputs}
    rows = leading.pop() if len(leading) == 1 else 0
    if rows > FEW_ROWS:
        with suppress(FrontendError):  # told again at the whole batch, if it is not its size
            few = tuple(x[:FEW_ROWS] for x in inputs)
            symbolic, _ = _symbolic(model, few, names, batch, record(model, few, names))
            if symbolic is not None:
                return symbolic, Batching(batch, True)
    native = record(model, inputs, names)
    if not rows:
        note = "the example inputs share no leading extent, so the batch is fixed"
        return native, Batching(inputs[0].shape[0] if inputs[0].dim() else 1, False, note)
    symbolic, reason = _symbolic(model, inputs, names, batch, native)
    if symbolic is not None:
        return symbolic, Batching(batch, True)
    if batch == rows:
        return native, Batching(batch, False, f"the batch is fixed at {batch}: {reason}")
    wanted, refusal = _attempt(model, inputs, names, batch, native)
    if wanted is not None:
        return wanted, Batching(batch, False, f"the batch is fixed at {batch}: {reason}")
    note = f"kept the example inputs' batch of {rows}: {refusal}"
    return native, Batching(rows, False, note)


def _symbolic(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    names: tuple[str, ...],
    batch: int,
    native: Recording,
) -> tuple[Recording | None, str]:
    """Record a graph for any batch, shapes noted at `batch`; return None and why there is none."""
    low = max(batch, 2)
    smaller, reason = _attempt(model, inputs, names, low, native)
    if smaller is None:
        return None, reason
    larger, reason = _attempt(model, inputs, names, low + 1, native)
    if larger is None:
        return None, reason
    reason = compare(smaller, larger, low, batch)
    return (None, reason) if reason else (smaller, "")


def _attempt(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    names: tuple[str, ...],
    batch: int,
    native: Recording,
) -> tuple[Recording | None, str]:
    """Record at another batch; return None and why where the outputs' rows change."""
    try:
        recording = record(model, [with_rows(x, batch) for x in inputs], names)
    except FrontendError as error:
        return None, f"at batch {batch} {error.message.splitlines()[0]}"
    reason = rows_agree(native.results, recording.results, batch)
    return (None, f"at batch {batch} {reason}") if reason else (recording, "")


def _graph_module(model: nn.Module, recording: Recording) -> fx.GraphModule:
    """Return the recorded graph with copies of the tensors that it reads."""
    graph = recording.graph
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)
    held: dict[str, Any] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    root = nn.Module()
    for node in graph.nodes:
        if node.op == "get_attr":
            name = str(node.target)
            place_tensor(root, name, recording.constants.get(name, held.get(name)))
    return fx.GraphModule(root, graph)


def place_tensor(root: nn.Module, name: str, tensor: Any) -> None:
    """Put a copy of a parameter or a buffer under a qualified name, making modules on the way."""
    *path, leaf = name.split(".")
    for part in path:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = getattr(root, part)
    copy = tensor.detach().clone()
    if isinstance(tensor, nn.Parameter):
        root.register_parameter(leaf, nn.Parameter(copy, requires_grad=tensor.requires_grad))
    else:
        root.register_buffer(leaf, copy)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode for a while."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _input_names(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[str, ...]:
    """Return the names of forward's positional parameters.

    Raises:
        FrontendError: forward does not take so many inputs.
    """
    if isinstance(model, OnnxModule):
        return model.argument_names
    signature = inspect.signature(model.forward)
    try:
        bound = signature.bind(*inputs)
    except TypeError as error:
        raise FrontendError(
            f"forward{signature} does not take the {len(inputs)} example inputs: {error}",
            place=type(model).__name__,
            remedy="return from example_inputs() one tensor per argument of forward()",
        ) from error
    names: list[str] = []
    for name, value in bound.arguments.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
            names.extend(f"{name}_{i}" for i in range(len(value)))
        else:
            names.append(name)
    return tuple(names)


def _check_inputs(inputs: tuple[Tensor, ...], names: tuple[str, ...]) -> None:
    """Raise for inputs of types that have no codes and for NaN and infinity."""
    if not inputs:
        raise FrontendError("there are no example inputs", remedy="give one tensor per argument")
    for name, tensor in zip(names, inputs, strict=True):
        if tensor.dtype not in INPUT_TYPES:
            raise FrontendError(
                f"example input `{name}` is {tensor.dtype}",
                remedy="give float32 values, or int64 indices of an embedding",
            )
        if tensor.numel() == 0:
            raise FrontendError(
                f"example input `{name}` of shape {tuple(tensor.shape)} is empty",
                remedy="give at least one example",
            )
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise FrontendError(
                f"example input `{name}` holds NaN or infinity", remedy="give finite values"
            )


def _check_weights(model: nn.Module) -> None:
    """Raise for parameters and statistics that are no finite float32 numbers in main memory."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if isinstance(tensor, UninitializedBuffer | UninitializedParameter):
            raise FrontendError(
                f"`{name}` has no shape yet",
                place=name,
                remedy="run a lazy module once before returning it",
            )
        if tensor.device.type != "cpu":
            raise FrontendError(
                f"`{name}` is on device {tensor.device}", place=name, remedy="call .cpu()"
            )
        if not tensor.is_floating_point():
            continue
        if tensor.dtype != torch.float32:
            raise FrontendError(
                f"`{name}` is {tensor.dtype}", place=name, remedy="call .float() on the model"
            )
        is_mask = not isinstance(tensor, nn.Parameter) and "running_" not in name
        broken = tensor.isnan() if is_mask else ~tensor.isfinite()
        if bool(broken.any()):
            raise FrontendError(
                f"{int(broken.sum())} of {tensor.numel()} elements of `{name}` are NaN or infinite",
                place=name,
                remedy="check the checkpoint that the weights come from",
            )
