# SPDX-License-Identifier: Apache-2.0
"""Loads a user's model: `file.py[:function]`, `package.module:callable` or `file.onnx`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from enos_compiler.errors import EnosError, FrontendError, UsageError, nearest
from enos_compiler.frontend.data import Data, as_data
from enos_compiler.frontend.onnx_user import OnnxSource
from enos_compiler.frontend.place import place_of_error

if TYPE_CHECKING:
    from torch import Tensor, nn


class _Source(Protocol):
    """Where a model comes from."""

    def model(self) -> nn.Module: ...
    def example_inputs(self) -> tuple[Tensor, ...]: ...
    def data(self) -> Data | None: ...
    def section(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True, eq=False)
class UserModel:
    """A user's network with its example inputs and, perhaps, data."""

    name: str
    """For output folders and reports."""
    path: Path | None
    """The file that defines the model; None for a module given from Python."""
    source: _Source
    _held: dict[str, Any] = field(default_factory=dict, repr=False)
    """What the user's functions returned: each is called once."""

    @classmethod
    def from_module(
        cls,
        model: nn.Module,
        example_inputs: Sequence[Tensor],
        *,
        data: Data | Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> UserModel:
        """Wrap a module at hand; its name defaults to its class's."""
        return cls(name or type(model).__name__, None, _Given(model, tuple(example_inputs), data))

    def model(self) -> nn.Module:
        """Return the user's module.

        Raises:
            FrontendError: the user's function raises, or returns something else than a module.
        """
        model: nn.Module = self._once("model", self.source.model)
        return model

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return the user's example inputs, a tuple of tensors.

        Raises:
            FrontendError: there is no such function, it raises, or it returns no tensors.
        """
        inputs: tuple[Tensor, ...] = self._once("example_inputs", self.source.example_inputs)
        return inputs

    def data(self) -> Data | None:
        """Return the user's data, its splits unopened; None where there are none."""
        data: Data | None = self._once("data", self.source.data)
        return data

    def section(self) -> Mapping[str, Any]:
        """Return what the report says of an imported file; empty for Python code."""
        return self.source.section()

    def _once(self, name: str, ask: Callable[[], Any]) -> Any:
        if name not in self._held:
            self._held[name] = ask()
        return self._held[name]


@dataclass(frozen=True, slots=True, eq=False)
class _Given:
    """A module, inputs and data that a Python caller holds."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    given: Data | Mapping[str, Any] | None

    def model(self) -> nn.Module:
        return self.module

    def example_inputs(self) -> tuple[Tensor, ...]:
        return self.inputs

    def data(self) -> Data | None:
        return None if self.given is None else as_data(self.given, "data")

    def section(self) -> Mapping[str, Any]:
        return {}


@dataclass(frozen=True, slots=True, eq=False)
class _File:
    """A user's file and the functions in it: `model`, `example_inputs` and perhaps `data`."""

    path: Path
    module: ModuleType
    function: str
    """Name of the function that returns the model."""
    arguments: Mapping[str, str]
    """Model arguments as text; each function takes those that it names."""
    seed: int = 0
    """Of the global generators, before each of the functions runs."""

    def model(self) -> nn.Module:
        from torch import nn

        result = self._call(self.function)
        if not isinstance(result, nn.Module):
            raise FrontendError(
                f"{self.function}() returned a {type(result).__name__}, not a torch.nn.Module",
                place=self._definition(self.function),
                remedy="return the module",
            )
        return result

    def example_inputs(self) -> tuple[Tensor, ...]:
        from torch import Tensor

        if not callable(getattr(self.module, "example_inputs", None)):
            raise FrontendError(
                "there is no function example_inputs()",
                place=str(self.path),
                remedy="define example_inputs() returning a tuple of tensors, a batch each",
            )
        result = self._call("example_inputs")
        inputs = (result,) if isinstance(result, Tensor) else result
        if (
            not isinstance(inputs, tuple | list)
            or not inputs
            or not all(isinstance(x, Tensor) for x in inputs)
        ):
            raise FrontendError(
                f"example_inputs() returned a {type(result).__name__} that is no tuple of tensors",
                place=self._definition("example_inputs"),
                remedy="return (tensor,) or (tensor, tensor, ...)",
            )
        return tuple(inputs)

    def data(self) -> Data | None:
        if not callable(getattr(self.module, "data", None)):
            return None
        found = self._call("data")
        return None if found is None else as_data(found, self._definition("data"))

    def section(self) -> Mapping[str, Any]:
        return {}

    def _call(self, name: str) -> Any:
        function = getattr(self.module, name)
        kwargs = self._arguments_of(name, function)
        _seed(self.seed)
        try:
            with _importable(self.path.parent):
                return function(**kwargs)
        except EnosError:
            raise
        except Exception as error:
            raise FrontendError(
                f"{name}() raised {type(error).__name__}: {error}",
                place=place_of_error(error) or self._definition(name),
                remedy=f"call {name}() by itself and repair it",
            ) from error

    def _definition(self, name: str) -> str:
        """Return file:line of a function, or the file alone."""
        try:
            line = inspect.getsourcelines(getattr(self.module, name))[1]
        except (OSError, TypeError):
            return str(self.path)
        return f"{self.path}:{line}"

    def _arguments_of(self, name: str, function: Callable[..., Any]) -> dict[str, Any]:
        """Return those of the model arguments that a function names, converted to its types."""
        signature = inspect.signature(function)
        hints = _hints(function)
        takes_all = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
        chosen: dict[str, Any] = {}
        for key, text in self.arguments.items():
            if key in signature.parameters:
                chosen[key] = _convert(key, text, signature.parameters[key], hints.get(key))
            elif takes_all:
                chosen[key] = text
        for key, parameter in signature.parameters.items():
            required = parameter.default is parameter.empty and parameter.kind not in (
                parameter.VAR_KEYWORD,
                parameter.VAR_POSITIONAL,
            )
            if required and key not in chosen:
                raise UsageError(
                    f"{name}() needs the argument `{key}`",
                    place=self._definition(name),
                    remedy=f"--model-arg {key}=VALUE",
                )
        return chosen


def _seed(seed: int) -> None:
    """Seed every generator that a user's code may draw from, so that a run can be repeated."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (users' code draws from the global generator)
    torch.manual_seed(seed)


def load_user_model(
    reference: str,
    model_args: Mapping[str, str] | None = None,
    *,
    calibration: Path | None = None,
    seed: int = 0,
) -> UserModel:
    """Load `file.py[:function]`, `package.module:callable` or `file.onnx`.

    Of Python code nothing but the import runs; an ONNX file is not read yet.

    Args:
        reference: where the model is; the function's default name is `model`.
        model_args: texts by name, for the functions that name them; for an ONNX file the extents
            of free axes by their names.
        calibration: npz file of an ONNX file's example inputs; None draws them.
        seed: of Python's, numpy's and torch's generators while the user's code runs, and of drawn
            inputs.

    Raises:
        FrontendError: the file is missing or fails to import, or lacks the function.
        UsageError: a model argument that no function names, calibration inputs for Python code.
    """
    if reference.endswith(".onnx"):
        onnx_file = Path(reference)
        source = OnnxSource(onnx_file, dict(model_args or {}), calibration, seed)
        return UserModel(onnx_file.stem, onnx_file, source)
    if calibration is not None:
        raise UsageError(
            "Python code gives its example inputs itself",
            place="--calibration",
            remedy="leave it out; example_inputs() returns what calibrates the ranges",
        )
    _seed(seed)
    place, _, function = reference.partition(":")
    if place.endswith(".py") or "/" in place or Path(place).is_dir():
        path = _existing(Path(place))
        module = _import_file(path)
    else:
        module = _import_module(place)
        path = Path(module.__file__ or place)
    name = function or "model"
    if not callable(getattr(module, name, None)):
        functions = [n for n, f in vars(module).items() if inspect.isfunction(f) and n[0] != "_"]
        raise FrontendError(
            f"there is no function {name}()",
            place=str(path),
            remedy=f"define {name}() returning a torch.nn.Module; functions here: "
            + (", ".join(functions) or "none"),
        )
    label = path.stem if name == "model" else f"{path.stem}-{name}"
    code = _File(path, module, name, dict(model_args or {}), seed)
    _refuse_unknown_arguments(code)
    return UserModel(label, path, code)


def _existing(path: Path) -> Path:
    """Return the resolved path of a file; name the nearest one in its folder if it is missing."""
    if path.is_file():
        return path.resolve()
    siblings = (
        [str(p) for p in path.parent.glob("*.py") if p.stem != "__init__"]
        if path.parent.is_dir()
        else []
    )
    raise FrontendError(
        "this file does not exist" if not path.is_dir() else "this is a folder, not a file",
        place=str(path),
        remedy=nearest(str(path), siblings) if siblings else "give the path of a Python file",
    )


def _import_file(path: Path) -> ModuleType:
    """Import a file under its own name, its folder importable while it loads."""
    spec = importlib.util.spec_from_file_location(f"enos_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise FrontendError("this is no Python file", place=str(path), remedy="give a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        with _importable(path.parent):
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        raise FrontendError(
            f"the file cannot be imported: {type(error).__name__}: {error}",
            place=place_of_error(error) or str(path),
            remedy=f"make `python {path.name}` run without an error",
        ) from error
    return module


def _import_module(name: str) -> ModuleType:
    """Import a module by its dotted name, the current folder importable."""
    try:
        with _importable(Path.cwd()):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and name.startswith(error.name):
            raise FrontendError(
                f"there is no module {error.name}",
                place=name,
                remedy="give file.py, file.py:function or package.module:callable",
            ) from error
        raise FrontendError(
            f"the module cannot be imported: {error}",
            place=place_of_error(error) or name,
            remedy=f"install {error.name}",
        ) from error
    except Exception as error:
        raise FrontendError(
            f"the module cannot be imported: {type(error).__name__}: {error}",
            place=place_of_error(error) or name,
            remedy=f"make `python -m {name}` run without an error",
        ) from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Put a folder first on the import path for a while."""
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def _refuse_unknown_arguments(user: _File) -> None:
    """Raise for a model argument that none of the user's functions names."""
    known: set[str] = set()
    for name in (user.function, "example_inputs", "data"):
        function = getattr(user.module, name, None)
        if not callable(function):
            continue
        parameters = inspect.signature(function).parameters
        if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return
        known |= set(parameters)
    for key in user.arguments:
        if key not in known:
            raise UsageError(
                f"no function takes the model argument `{key}`",
                place=str(user.path),
                remedy=nearest(key, known),
            )


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return resolved annotations; none where they name what is not importable."""
    target = function.__init__ if inspect.isclass(function) else function
    try:
        return typing.get_type_hints(target)
    except (NameError, AttributeError, TypeError):
        return {}


def _convert(key: str, text: str, parameter: inspect.Parameter, hint: Any) -> Any:
    """Return the text as the parameter's annotated type, or as the type of its default."""
    from pydantic import TypeAdapter, ValidationError

    default = parameter.default
    if hint is None and default not in (None, parameter.empty):
        hint = type(default)
    if hint is None or hint is Any:
        return text
    adapter: TypeAdapter[Any] = TypeAdapter(hint)
    try:
        return adapter.validate_python(text)
    except ValidationError as plain:
        try:
            return adapter.validate_json(text)
        except ValidationError:
            reason = plain.errors()[0]["msg"]
            expected = getattr(hint, "__name__", str(hint))
            raise UsageError(
                f"model argument {key}={text} is no {expected}: {reason}",
                remedy=f"--model-arg {key}=VALUE with a value of type {expected}",
            ) from plain
