# SPDX-License-Identifier: Apache-2.0
"""What a mapping may minimise; imports nothing heavy, so that commands can name it at once."""

from __future__ import annotations

from typing import Literal, get_args

Objective = Literal["energy", "latency", "edp", "accesses"]
"""energy in pJ, latency in cycles, their product, or words read and written at the outermost level.
Ties are broken by energy."""
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
