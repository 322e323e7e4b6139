# SPDX-License-Identifier: Apache-2.0
"""An ONNX file as a user's model: its module, and inputs that calibrate it.

A file holds no example inputs. They come from an npz file, an array per graph input, or are drawn
from a seed: standard normal numbers, and token ids below the rows of the table that they select
from. What was used is said in the report's section `onnx`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from enos_compiler.errors import FrontendError, UsageError, nearest
from enos_compiler.frontend.arrays import read_arrays
from enos_compiler.frontend.onnx_file import LARGEST_TENSOR, opset_of, read_onnx

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto
    from torch import Tensor

    from enos_compiler.frontend.data import Data
    from enos_compiler.frontend.onnx_module import OnnxModule

RANDOM_ROWS = 8
"""Entries of a drawn batch."""


@dataclass(slots=True, eq=False)
class OnnxSource:
    """A file, and what stands in for example inputs.

    Args:
        path: of the ONNX file.
        extents: of free axes other than the first, as texts by the axis's name.
        calibration: npz file of example inputs; None draws them.
        seed: of the drawn ones.
    """

    path: Path
    extents: Mapping[str, str] = field(default_factory=dict)
    calibration: Path | None = None
    seed: int = 0
    _proto: ModelProto | None = None
    _module: OnnxModule | None = None
    _said: str = ""

    def model(self) -> OnnxModule:
        """Return the module.

        Raises:
            FrontendError: see `read_onnx` and `OnnxModule`.
        """
        from enos_compiler.frontend.onnx_module import OnnxModule

        if self._module is None:
            self._module = OnnxModule(self._read(), self.path)
        return self._module

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return the calibration file's inputs, or drawn ones.

        Raises:
            FrontendError: an input has free axes without an extent, or the file does not fit.
        """
        import torch

        infos = {i.name: i for i in self._read().graph.input if i.name in self.model().input_names}
        self._refuse_unknown_axes(infos)
        if self.calibration is not None:
            arrays = _calibration(self.calibration, tuple(infos))
            inputs = tuple(torch.from_numpy(arrays[name]) for name in infos)
            for (name, info), x in zip(infos.items(), inputs, strict=True):
                self._check_fits(name, info, x)
            self._said = f"calibrated on {len(inputs[0])} inputs of {self.calibration.name}"
            return inputs
        shapes = [self._shape(info) for info in infos.values()]
        inputs = self._drawn(infos, shapes)
        what = "entry" if len(inputs[0]) == 1 else "entries"
        self._said = (
            f"ranges come from {len(inputs[0])} random {what} (seed {self.seed}): "
            "--calibration FILE.npz gives real ones"
        )
        return inputs

    def data(self) -> Data | None:
        """Return None: a file holds no data."""
        return None

    def section(self) -> Mapping[str, Any]:
        """Return what the report says of the file."""
        proto = self._read()
        return {
            "file": self.path.name,
            "producer": f"{proto.producer_name} {proto.producer_version}".strip(),
            "opset": opset_of(proto),
            "notes": [self._said] if self._said else [],
        }

    def _read(self) -> ModelProto:
        if self._proto is None:
            self._proto = read_onnx(self.path)
        return self._proto

    # -- shapes -----------------------------------------------------------------------------

    def _refuse_unknown_axes(self, infos: Mapping[str, ValueInfoProto]) -> None:
        known = {
            dim.dim_param
            for info in infos.values()
            for dim in info.type.tensor_type.shape.dim[1:]
            if dim.dim_param
        }
        for name in self.extents:
            if name not in known:
                raise UsageError(
                    f"no input has a free axis `{name}` behind the batch",
                    place=str(self.path),
                    remedy=nearest(name, known) if known else "leave --model-arg out",
                )

    def _shape(self, info: ValueInfoProto) -> tuple[int, ...]:
        """Return the shape of an input; a free first axis is the batch."""
        shape = info.type.tensor_type.shape
        extents = []
        for axis, dim in enumerate(shape.dim):
            if dim.dim_value > 0:
                extents.append(dim.dim_value)
            elif axis == 0:
                extents.append(RANDOM_ROWS)
            else:
                extents.append(self._free_extent(info.name, axis, dim.dim_param))
        if np.prod(extents, dtype=float) > LARGEST_TENSOR:
            raise FrontendError(
                f"input `{info.name}` of shape {tuple(extents)} is too large",
                place=str(self.path),
                remedy="export the network again at its true size",
            )
        return tuple(extents)

    def _free_extent(self, name: str, axis: int, label: str) -> int:
        text = self.extents.get(label, "")
        if text.isdigit() and int(text) > 0:
            return int(text)
        if text:
            raise UsageError(
                f"{label}={text} is no extent", remedy=f"--model-arg {label}=N with N of at least 1"
            )
        way = f"--model-arg {label}=N, or " if label else ""
        raise FrontendError(
            f"axis {axis} of input `{name}` is free" + (f" (`{label}`)" if label else ""),
            place=str(self.path),
            remedy=f"{way}--calibration FILE.npz with inputs of the wanted shape",
        )

    def _check_fits(self, name: str, info: ValueInfoProto, x: Tensor) -> None:
        dims = info.type.tensor_type.shape.dim
        fits = x.dim() == len(dims) and all(
            axis == 0 or dim.dim_value in (0, n)
            for axis, (dim, n) in enumerate(zip(dims, x.shape, strict=True))
        )
        if not fits:
            wanted = ", ".join(str(d.dim_value or d.dim_param or "?") for d in dims)
            raise FrontendError(
                f"array `{name}` of shape {tuple(x.shape)} does not fit the input ({wanted})",
                place=str(self.calibration),
                remedy="give a batch of inputs as the network takes them",
            )

    # -- drawing ----------------------------------------------------------------------------

    def _drawn(
        self, infos: Mapping[str, ValueInfoProto], shapes: list[tuple[int, ...]]
    ) -> tuple[Tensor, ...]:
        """Draw inputs; several rows also where the file fixes one but works on more."""
        leads = {shape[0] for shape in shapes if shape}
        if leads == {1} and all(shapes):
            many = self._draw(infos, [(RANDOM_ROWS, *shape[1:]) for shape in shapes])
            if self._takes(many):
                return many
        return self._draw(infos, shapes)

    def _draw(
        self, infos: Mapping[str, ValueInfoProto], shapes: list[tuple[int, ...]]
    ) -> tuple[Tensor, ...]:
        import torch
        from onnx import TensorProto

        generator = torch.Generator().manual_seed(self.seed)
        inputs: list[Tensor] = []
        for (name, info), shape in zip(infos.items(), shapes, strict=True):
            kind = info.type.tensor_type.elem_type
            if kind == TensorProto.FLOAT:
                inputs.append(torch.randn(shape, generator=generator))
            elif kind in (TensorProto.INT64, TensorProto.INT32):
                dtype = torch.int64 if kind == TensorProto.INT64 else torch.int32
                rows = self._table_rows(name)
                inputs.append(torch.randint(rows, shape, generator=generator, dtype=dtype))
            else:
                raise FrontendError(
                    f"input `{name}` is of type {TensorProto.DataType.Name(kind).lower()}",
                    place=str(self.path),
                    remedy="export with float32 inputs, or int64 token ids",
                )
        return tuple(inputs)

    def _table_rows(self, name: str) -> int:
        """Return the rows of the smallest table that an integer input selects from."""
        graph = self._read().graph
        rows = {t.name: int(t.dims[0]) for t in graph.initializer if t.dims}
        found = [
            rows[node.input[0]]
            for node in graph.node
            if node.op_type == "Gather" and node.input[1] == name and node.input[0] in rows
        ]
        if not found:
            raise FrontendError(
                f"integer input `{name}` selects from no table: its range is not known",
                place=str(self.path),
                remedy="--calibration FILE.npz with example inputs",
            )
        return min(found)

    def _takes(self, inputs: tuple[Tensor, ...]) -> bool:
        """Whether the module takes a batch and computes each entry by itself."""
        import torch

        from enos_compiler.frontend.batching import rows_agree

        module = self.model().eval()
        try:
            with torch.no_grad():
                one = module(*(x[:1] for x in inputs))
                two = module(*(x[:1].expand(2, *x.shape[1:]) for x in inputs))
        except FrontendError:
            return False
        return not rows_agree(one, two, 2)


def _calibration(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the arrays of an npz file, one for each input and of the types that are read.

    Raises:
        FrontendError: the file is missing, damaged, or lacks an input.
    """
    arrays = read_arrays(path)
    if len(names) == 1 and len(arrays) == 1:
        arrays = {names[0]: next(iter(arrays.values()))}
    for name in names:
        if name not in arrays:
            raise FrontendError(
                f"there is no array `{name}`", place=str(path), remedy=nearest(name, arrays)
            )
    if not all(arrays[name].ndim and arrays[name].size for name in names):
        raise FrontendError("an array is empty", place=str(path), remedy="give a batch of inputs")
    return {name: _plain_type(arrays[name]) for name in names}


def _plain_type(array: Any) -> Any:
    return array.astype(np.float32) if array.dtype.kind == "f" else np.ascontiguousarray(array)
