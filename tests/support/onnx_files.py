# SPDX-License-Identifier: Apache-2.0
"""ONNX files for tests: exported from a torch module, or built by hand from nodes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

Shape = Sequence[int | str | None]
Array = np.ndarray[Any, Any]


def export(
    model: nn.Module, inputs: tuple[Tensor, ...], path: Path, *, opset: int = 17, free: bool = True
) -> Path:
    """Write a module as ONNX with torch's own exporter; the batch is free unless said otherwise."""
    names = [f"x{i}" for i in range(len(inputs))]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            inputs,
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=names,
            dynamic_axes={name: {0: "batch"} for name in names} if free else None,
        )
    return path


def graph(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Shape],
    tensors: Mapping[str, Array] | None = None,
    *,
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """Return a model of some nodes; its outputs' shapes are inferred."""
    body = helper.make_graph(
        list(nodes),
        "hand_built",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (tensors or {}).items()],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def run(path: Path, inputs: Sequence[Array]) -> list[Array]:
    """Return what ONNX Runtime computes, optimisations off."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    found: list[Array] = session.run(None, dict(zip(names, inputs, strict=True)))
    return found
