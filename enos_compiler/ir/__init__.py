# SPDX-License-Identifier: Apache-2.0
"""The network between passes: layers, shapes, choices, costs, programs."""

from enos_compiler.ir.choice import Bits, Choice, Refusal
from enos_compiler.ir.cost import Action, Cost, Price, component_of
from enos_compiler.ir.formats import ArrayForm, ArrayRead, IntArray, QuantizedLayer, ValueFormat
from enos_compiler.ir.network import FACTS, Fact, Home, Layer, Network, Node, Value, Vector
from enos_compiler.ir.program import Buffer, Instruction, Memory, Program
from enos_compiler.ir.shape import DIMS, RELEVANT, TENSORS, Dim, LayerShape, Tensor

__all__ = [
    "DIMS",
    "FACTS",
    "RELEVANT",
    "TENSORS",
    "Action",
    "ArrayForm",
    "ArrayRead",
    "Bits",
    "Buffer",
    "Choice",
    "Cost",
    "Dim",
    "Fact",
    "Home",
    "Instruction",
    "IntArray",
    "Layer",
    "LayerShape",
    "Memory",
    "Network",
    "Node",
    "Price",
    "Program",
    "QuantizedLayer",
    "Refusal",
    "Tensor",
    "Value",
    "ValueFormat",
    "Vector",
    "component_of",
]
