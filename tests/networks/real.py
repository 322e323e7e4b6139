# SPDX-License-Identifier: Apache-2.0
"""Real inputs for networks: photographs or handwritten digits for images, text for tokens."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

ROOT = Path(__file__).parents[2]


def real_inputs(example: Tensor, vocabulary: int = 0, rows: int = 8) -> Tensor | None:
    """Return real inputs of an example input's form, or None where there are none.

    Images are CIFAR-10 test images where `ENOS_SHARED` has them, else scikit-learn's digits,
    resized; tokens are the characters of the README. For sound there is nothing.
    """
    if vocabulary:
        text = (ROOT / "README.md").read_bytes()[: rows * example.shape[1]]
        codes = torch.tensor(list(text)).reshape(rows, -1)
        return codes % vocabulary
    if example.dim() != 4 or example.shape[1] != 3:
        return None
    return F.interpolate(_images(rows), example.shape[2:], mode="bilinear", antialias=True)


def _images(rows: int) -> Tensor:
    """Return standardised images, (rows, 3, n, n)."""
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        cifar = importlib.import_module("cifar")
    finally:
        sys.path.remove(str(ROOT / "examples"))
    if cifar.find_folder("") is not None:
        test = cifar.splits("", cifar.CIFAR_MEAN, cifar.CIFAR_STD)["test"]()
        return torch.stack([test[i][0] for i in range(rows)])
    from sklearn.datasets import load_digits

    digits = torch.from_numpy(load_digits().images[:rows]).float()
    return (digits.unsqueeze(1).expand(-1, 3, -1, -1) - 4.9) / 6.0
