# SPDX-License-Identifier: Apache-2.0
"""Target files: strict models, loading, error places."""

from enos_compiler.spec.document import Document, parse_document, read_document
from enos_compiler.spec.model import (
    Count,
    NonNegative,
    Positive,
    Quantity,
    Strict,
    rule_error,
    validate,
)
from enos_compiler.spec.target import (
    ArithmeticSpec,
    BufferSpec,
    CoreForm,
    LinkSpec,
    MemorySpec,
    PartSpec,
    TargetSpec,
    TechnologySpec,
    check_target,
    find_target,
    read_target,
)

__all__ = [
    "ArithmeticSpec",
    "BufferSpec",
    "CoreForm",
    "Count",
    "Document",
    "LinkSpec",
    "MemorySpec",
    "NonNegative",
    "PartSpec",
    "Positive",
    "Quantity",
    "Strict",
    "TargetSpec",
    "TechnologySpec",
    "check_target",
    "find_target",
    "parse_document",
    "read_document",
    "read_target",
    "rule_error",
    "validate",
]
