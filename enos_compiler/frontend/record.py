# SPDX-License-Identifier: Apache-2.0
"""Records what a model computes: every torch call on a traced tensor becomes an fx node.

The model runs on its example inputs while a torch function mode sees each call of torch's public
functions. Shapes are therefore plain integers in the user's code, control flow on them works, and
what depends on no input folds into constants. Control flow on the *contents* of a tensor, random
numbers and writes into slices raise with the user's line.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from enos_compiler.errors import FrontendError
from enos_compiler.frontend.onnx_module import OnnxNode
from enos_compiler.frontend.place import place_of_caller, place_of_error

READS_CONTENTS = (
    *("__bool__", "__int__", "__float__", "__index__", "__complex__", "__contains__"),
    *("__array__", "__format__", "item", "tolist", "numpy", "equal", "allclose", "is_nonzero"),
)
"""Calls that turn a tensor's contents into Python values."""

RANDOM = (
    *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like"),
    *("bernoulli", "bernoulli_", "normal", "normal_", "uniform_", "random_", "multinomial"),
    *("poisson", "exponential_", "rrelu", "gumbel_softmax"),
)
"""Calls whose result differs from run to run."""

FACTORIES = ("new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like")
"""Calls that read a tensor's shape alone; what they make is constant."""

WRITES = ("__setitem__", "copy_", "set_", "scatter_", "index_copy_", "index_add_", "index_put_")
"""Calls that write into a part of a tensor."""

_SHORT = {"multi_head_attention_forward": "", "scaled_dot_product_attention": "attention"}
"""Calls whose nodes have shorter names than torch's."""


@dataclass(slots=True)
class Recording:
    """A recorded run: the graph, its constants and its results."""

    graph: fx.Graph
    constants: dict[str, Tensor]
    """Tensors that are no parameter or buffer of the model, by attribute name."""
    results: tuple[Tensor, ...]
    """Outputs of the run, in the order of the graph's outputs."""


@dataclass(slots=True)
class _Modules:
    """The stack of modules that are running, kept by hooks."""

    stack: list[tuple[str, nn.Module]] = field(default_factory=list)

    @contextmanager
    def watch(self, model: nn.Module) -> Iterator[None]:
        """Keep the stack while the model runs."""
        handles = []
        for name, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(self._enter(name, module)))
            handles.append(module.register_forward_hook(self._leave, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str, module: nn.Module) -> Any:
        def enter(_module: nn.Module, _args: Any) -> None:
            self.stack.append((name, module))

        return enter

    def _leave(self, _module: nn.Module, _args: Any, _result: Any) -> None:
        self.stack.pop()

    @property
    def path(self) -> str:
        """Qualified name of the innermost running module."""
        return self.stack[-1][0] if self.stack else ""

    @property
    def place(self) -> str | None:
        """Where the running call stands: a node of an ONNX file, or the user's line."""
        module = self.stack[-1][1] if self.stack else None
        if isinstance(module, OnnxNode):
            return module.place
        return place_of_caller(record.__code__)

    def hint(self, call: str) -> str:
        """Return a node name: the module's path, with the call's name unless it says it all."""
        call = _SHORT.get(call, call.strip("_"))
        if not self.stack:
            return call or "result"
        path, module = self.stack[-1]
        kind = type(module)
        is_leaf = kind.__module__.startswith("torch.nn.") and not list(module.children())
        if path[:1].isdigit():
            path = f"{kind.__name__.lower()}_{path}"
        if path and (is_leaf or isinstance(module, OnnxNode)):
            return path.replace(".", "_")
        return "_".join(filter(None, (path.replace(".", "_"), call))) or "result"


class Recorder(TorchFunctionMode):
    """Records torch calls on traced tensors into an fx graph."""

    def __init__(self, model: nn.Module, modules: _Modules) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.constants: dict[str, Tensor] = {}
        self._modules = modules
        self._traced: dict[int, tuple[Tensor, fx.Node, int]] = {}
        self._attributes: dict[int, fx.Node] = {}
        self._kept: list[Tensor] = []
        self._named = {id(t): name for name, t in _named_tensors(model)}
        self._stored = {_storage_key(t): name for name, t in _named_tensors(model)}

    def input(self, name: str, tensor: Tensor) -> None:
        """Trace an input."""
        node = self.graph.placeholder(name)
        node.meta.update(_description(tensor), place=None, origin="")
        self._follow(tensor, node)

    def output(self, result: Any) -> tuple[Tensor, ...]:
        """End the graph with the tensors of a model's result; return them."""
        leaves = [leaf for leaf in pytree.tree_leaves(result) if leaf is not None]
        if not leaves:
            raise FrontendError("the model returns no tensor", remedy="return what it computes")
        for leaf in leaves:
            if not isinstance(leaf, Tensor):
                raise FrontendError(
                    f"the model returns a {type(leaf).__name__}",
                    remedy="return a tensor, or a tuple, list or dict of tensors",
                )
            if id(leaf) not in self._traced:
                raise FrontendError(
                    "the model returns a tensor that depends on no input",
                    remedy="leave constants out of the result",
                )
        self.graph.output(tuple(self._node(leaf) for leaf in leaves))
        return tuple(leaves)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run a torch call and record it if it reads a traced tensor."""
        del types
        kwargs = kwargs or {}
        name = _call_name(func)
        traced = [t for t in _tensors((args, kwargs)) if id(t) in self._traced]
        self._refuse(name, kwargs, bool(traced))
        if not traced or name in FACTORIES:
            return func(*args, **kwargs)
        arguments = self._arguments(args), self._arguments(kwargs)
        result = func(*args, **kwargs)
        if any(True for _ in _tensors(result)):
            node = self._create(func, name, *arguments)
            node.meta.update(
                _description(result),
                place=self._modules.place,
                origin=self._modules.path,
                hint=self._modules.hint(name),
                call=name,
            )
            self._follow_all(result, node)
        return result

    def _refuse(self, name: str, kwargs: dict[str, Any], traced: bool) -> None:
        """Raise for calls whose meaning a fixed graph cannot hold."""
        if name in RANDOM or (name == "dropout" and kwargs.get("training") and kwargs.get("p")):
            raise self._error(
                f"`{name}` draws random numbers while the model runs",
                "make it depend on self.training, or draw once in __init__ into a buffer",
            )
        if not traced:
            return
        if name in READS_CONTENTS:
            raise self._error(
                f"`{name}` reads the contents of a traced tensor: control flow that depends on "
                "data cannot be compiled",
                "compute both ways and select by arithmetic, or decide from shapes",
            )
        if name in WRITES or kwargs.get("out") is not None:
            raise self._error(
                f"`{name}` writes into a part of a tensor",
                "build the tensor with torch.cat, torch.stack or arithmetic",
            )

    def _error(self, message: str, remedy: str) -> FrontendError:
        path = self._modules.path
        return FrontendError(
            f"{message} (module {path})" if path else message,
            place=self._modules.place,
            remedy=remedy,
        )

    def _create(self, func: Any, name: str, args: Any, kwargs: Any) -> fx.Node:
        """Append the node that repeats a call."""
        kind = type(func).__name__
        if kind == "method-wrapper":
            attribute = func.__self__.__name__
            return self.graph.call_function(getattr, (*args[:1], attribute))
        if kind in ("method_descriptor", "wrapper_descriptor"):
            return self.graph.call_method(name, args, kwargs)
        return self.graph.call_function(func, args, kwargs)

    def _arguments(self, value: Any) -> Any:
        """Replace tensors by nodes and torch's and numpy's own types by Python's."""
        if isinstance(value, Tensor):
            return self._node(value)
        if isinstance(value, dict):
            return {key: self._arguments(item) for key, item in value.items()}
        if isinstance(value, tuple):
            return tuple(self._arguments(item) for item in value)
        if isinstance(value, list):
            return [self._arguments(item) for item in value]
        if isinstance(value, slice):
            return slice(*(self._arguments(x) for x in (value.start, value.stop, value.step)))
        return value.item() if isinstance(value, np.generic) else value

    def _node(self, tensor: Tensor) -> fx.Node:
        """Return the node of a traced tensor or the get_attr node of a constant."""
        if id(tensor) not in self._traced:
            return self._attribute(tensor)
        _, node, version = self._traced[id(tensor)]
        if _version(tensor) != version:
            error = self._error(
                "a tensor is used after another view of its memory was changed in place",
                "use the form that returns a new tensor, e.g. relu instead of relu_, x = x + y",
            )
            error.place = error.place or self._place_of_change(tensor)
            raise error
        return node

    def _place_of_change(self, tensor: Tensor) -> str | None:
        """Return the line of the last recorded call on the memory of a tensor."""
        memory = tensor.untyped_storage().data_ptr()
        places = [
            node.meta.get("place")
            for other, node, _ in self._traced.values()
            if other.untyped_storage().data_ptr() == memory and other is not tensor
        ]
        return places[-1] if places else None

    def _attribute(self, tensor: Tensor) -> fx.Node:
        """Return the get_attr node of a parameter, a buffer or a constant."""
        name = self._named.get(id(tensor)) or self._stored.get(_storage_key(tensor))
        if name is None:
            if id(tensor) in self._attributes:
                return self._attributes[id(tensor)]
            name = f"constant_{len(self.constants)}"
            self.constants[name] = tensor.detach().clone()
            self._kept.append(tensor)
        for node in self._attributes.values():
            if node.target == name:
                return node
        # fx warns about names that no module holds yet; the module is built with them afterwards.
        node = self.graph.create_node("get_attr", name)
        node.meta.update(_description(tensor), place=None, origin="")
        self._attributes[id(tensor)] = node
        return node

    def _follow_all(self, result: Any, node: fx.Node) -> None:
        """Trace the tensors of a result: the node itself, or items taken from it."""
        if isinstance(result, Tensor):
            self._follow(result, node)
            return
        for index, item in enumerate(result):
            if isinstance(item, Tensor):
                item_node = self.graph.call_function(_item, (node, index))
                item_node.meta.update(node.meta, **_description(item))
                self._follow(item, item_node)

    def _follow(self, tensor: Tensor, node: fx.Node) -> None:
        self._traced[id(tensor)] = (tensor, node, _version(tensor))


def _item(values: Sequence[Tensor], index: int) -> Tensor:
    """Return one of several results."""
    return values[index]


ITEM = _item
"""Target of the nodes that take one result of a call with several."""


def record(model: nn.Module, inputs: Sequence[Tensor], names: Sequence[str]) -> Recording:
    """Run the model once under the recorder.

    Args:
        model: in evaluation mode.
        inputs: one tensor per positional argument; they are not changed.
        names: of the inputs.

    Raises:
        FrontendError: the model raises, or does what no graph can hold.
    """
    modules = _Modules()
    recorder = Recorder(model, modules)
    copies = [x.detach().clone() for x in inputs]
    for name, tensor in zip(names, copies, strict=True):
        recorder.input(name, tensor)
    with torch.no_grad(), modules.watch(model):
        try:
            with recorder:
                result = model(*copies)
        except FrontendError:
            raise
        except Exception as error:
            raise model_error(error, model, inputs) from error
        return Recording(recorder.graph, recorder.constants, recorder.output(result))


def model_error(error: Exception, model: nn.Module, inputs: Sequence[Tensor]) -> FrontendError:
    """Return the error for a model that raises on its example inputs; it names the module."""
    names = {id(module): name for name, module in model.named_modules()}
    running = [f.f_locals.get("self") for f, _ in traceback.walk_tb(error.__traceback__)]
    path = next((names[id(m)] for m in reversed(running) if id(m) in names), "")
    shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
    where = f" in module {path}" if path else ""
    return FrontendError(
        f"the model raises {type(error).__name__}{where} on inputs of shape {shapes}: {error}",
        place=place_of_error(error),
        remedy="check that example_inputs() fits forward() in number, shape and dtype",
    )


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _storage_key(tensor: Tensor) -> tuple[Any, ...]:
    """Return what two views of the same numbers share."""
    return (
        tensor.data_ptr(),
        tensor.dtype,
        tuple(tensor.shape),
        tuple(tensor.stride()),
    )


def _version(tensor: Tensor) -> int:
    """Return the change counter that all views of one memory share."""
    return -1 if tensor.is_inference() else tensor._version


def _tensors(value: Any) -> Iterator[Tensor]:
    return (leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor))


def _call_name(func: Any) -> str:
    """Return the name of a call; for the getter of an attribute, the attribute's."""
    name: str = getattr(func, "__name__", type(func).__name__)
    return str(func.__self__.__name__) if name == "__get__" else name


def _description(result: Any) -> dict[str, Any]:
    """Return shape and dtype of a tensor, or tuples of them."""
    if isinstance(result, Tensor):
        return {"shape": tuple(result.shape), "dtype": str(result.dtype).removeprefix("torch.")}
    parts = [_description(item) for item in result if isinstance(item, Tensor)]
    return {"shape": tuple(p["shape"] for p in parts), "dtype": tuple(p["dtype"] for p in parts)}
