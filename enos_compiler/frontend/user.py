# SPDX-License-Identifier: Apache-2.0
"""Loads a user's model: `file.py[:function]`, `package.module:callable` or `file.onnx`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from enos_compiler.errors import FrontendError, UsageError
from enos_compiler.frontend.data import Data, as_data
from enos_compiler.frontend.onnx_user import OnnxSource
from enos_compiler.frontend.user_functions import PythonSource, refuse_unknown_arguments
from enos_compiler.frontend.user_import import (
    existing_file,
    import_file,
    import_module,
    seed_generators,
)

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
    seed_generators(seed)
    place, _, function = reference.partition(":")
    if place.endswith(".py") or "/" in place or Path(place).is_dir():
        path = existing_file(Path(place))
        module = import_file(path)
    else:
        module = import_module(place)
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
    code = PythonSource(path, module, name, dict(model_args or {}), seed)
    refuse_unknown_arguments(code)
    return UserModel(label, path, code)
