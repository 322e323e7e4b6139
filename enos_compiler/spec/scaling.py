# SPDX-License-Identifier: Apache-2.0
"""How the energy of logic changes from one process to another."""

from __future__ import annotations

from collections.abc import Mapping

_ENERGY: Mapping[int, tuple[float, float, float]] = {
    130: (7.171, -6.709, 2.904),
    90: (4.762, -4.781, 2.092),
    65: (3.755, -4.398, 1.975),
    45: (1.103, -0.362, 0.2767),
    32: (0.9559, -0.7823, 0.471),
    20: (0.373, -0.1582, 0.04104),
    16: (0.2958, -0.1241, 0.03024),
    14: (0.2363, -0.09675, 0.02239),
    10: (0.2068, -0.09311, 0.02375),
    7: (0.1776, -0.09097, 0.02447),
}
"""Node in nm: a, b, c of the energy a V^2 + b V + c of a logic operation.

Source: Stillmaker and Baas, Integration 58, 2017, as in the Accelergy library plug-in (seen).
"""


def logic_energy(node_nm: float, vdd_v: float) -> float | None:
    """Return the relative energy of a logic operation; None at a node that was not fitted."""
    fitted = _ENERGY.get(round(node_nm))
    if fitted is None or node_nm != round(node_nm):
        return None
    a, b, c = fitted
    return a * vdd_v**2 + b * vdd_v + c


def scaling_advice(node_nm: float, vdd_v: float, to_node_nm: float, to_vdd_v: float) -> str:
    """Return what to do with figures of another process, for logic with the factor."""
    own, wanted = logic_energy(node_nm, vdd_v), logic_energy(to_node_nm, to_vdd_v)
    factor = f", for logic times {wanted / own:.3g} (Stillmaker and Baas)" if own and wanted else ""
    return f"scale the figures{factor}, say so in their source, and give the chip's process"
