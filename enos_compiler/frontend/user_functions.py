# SPDX-License-Identifier: Apache-2.0
"""A user's functions: `model`, `example_inputs` and `data`, with their arguments from texts."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from enos_compiler.errors import EnosError, FrontendError, UsageError, nearest
from enos_compiler.frontend.data import Data, as_data
from enos_compiler.frontend.place import place_of_error
from enos_compiler.frontend.user_import import importable, seed_generators

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True, eq=False)
class PythonSource:
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
        """Return what the function of the model returns.

        Raises:
            FrontendError: it raises, or returns something else than a module.
        """
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
        """Return what `example_inputs` returns.

        Raises:
            FrontendError: there is no such function, it raises, or it returns no tensors.
        """
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
        """Return what `data` returns, its splits unopened; None where there is no such function."""
        if not callable(getattr(self.module, "data", None)):
            return None
        found = self._call("data")
        return None if found is None else as_data(found, self._definition("data"))

    def section(self) -> Mapping[str, Any]:
        """Return nothing: the code says by itself where the network comes from."""
        return {}

    def _call(self, name: str) -> Any:
        function = getattr(self.module, name)
        kwargs = self._arguments_of(name, function)
        seed_generators(self.seed)
        try:
            with importable(self.path.parent):
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


def refuse_unknown_arguments(user: PythonSource) -> None:
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
