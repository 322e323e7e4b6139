# SPDX-License-Identifier: Apache-2.0
"""Finds vector operations by name: the built-in ones, then those of installed packages."""

from __future__ import annotations

from functools import cache

from enos_compiler import plugins
from enos_compiler.semantics.arithmetic import Add, Concat, Mul, Sub
from enos_compiler.semantics.base import VectorOp
from enos_compiler.semantics.movement import (
    Embedding,
    Expand,
    Interleave,
    Pad,
    Permute,
    Reshape,
    ResizeNearest,
    Slice,
)
from enos_compiler.semantics.normalisation import GroupNorm, LayerNorm, Softmax
from enos_compiler.semantics.pooling import AvgPool, MaxPool, Mean
from enos_compiler.semantics.tables import BatchNorm, Elementwise


@cache
def built_in() -> dict[str, VectorOp]:
    """Return the built-in operations by name."""
    operations: tuple[VectorOp, ...] = (
        Add(),
        AvgPool(),
        BatchNorm(),
        Concat(),
        Elementwise(),
        Embedding(),
        Expand(),
        GroupNorm(),
        Interleave(),
        LayerNorm(),
        MaxPool(),
        Mean(),
        Mul(),
        Pad(),
        Permute(),
        Reshape(),
        ResizeNearest(),
        Slice(),
        Softmax(),
        Sub(),
    )
    return {operation.name: operation for operation in operations}


def vector_op(name: str) -> VectorOp:
    """Return the operation of that name.

    Raises:
        UsageError: neither built in nor registered under `enos_compiler.vector_ops`.
    """
    operations = built_in()
    if name in operations:
        return operations[name]
    registered: VectorOp = plugins.load("vector_ops", name)()
    return registered
