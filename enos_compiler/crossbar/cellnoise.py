# SPDX-License-Identifier: Apache-2.0
"""Random errors of cell conductances, shared by the floating-point and the integer models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from enos_compiler.errors import SpecError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CellNoise:
    """Normal error of a conductance, floored at zero: a cell cannot conduct less than nothing.

    independent: g + sigma N, sigma in units of the on conductance. proportional: g (1 + sigma N).
    The floor gives the zero cells of an ideal off state a mean of 0.4 sigma, which cancels in the
    difference of a pair but not in an offset encoding.

    Source: error models of CrossSim 3.2 (seen).
    """

    sigma: float
    kind: Literal["independent", "proportional"] = "independent"

    def __post_init__(self) -> None:
        """Refuse a negative spread."""
        if self.sigma < 0:
            raise SpecError(
                f"sigma = {self.sigma} is negative", place="cell noise", remedy="0 or more"
            )

    def apply(
        self, g: Floats, rng: np.random.Generator, shape: tuple[int, ...] | None = None
    ) -> Floats:
        """Return `g` with one draw per element, broadcast to `shape` where given."""
        draw = rng.standard_normal(g.shape if shape is None else shape)
        spread = self.sigma * (g if self.kind == "proportional" else 1.0)
        return np.asarray(np.maximum(g + spread * draw, 0.0))
