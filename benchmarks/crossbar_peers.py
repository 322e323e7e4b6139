# SPDX-License-Identifier: Apache-2.0
"""Public crossbar simulators on the network of `benchmarks/crossbar.py`, where they are installed.

CrossSim (sandialabs/cross-sim 3, import name `simulator`) and aihwkit (IBM, 1.x) take a torch
module and return one whose convolutions and linear layers run on simulated arrays. Their
configurations are as near to ours as they come: arrays of 256 rows and columns, differential cells
without slices unless said, 8-bit converters, errors of 2 % of the on conductance.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

Peer = Callable[[nn.Module], Callable[[Tensor], Tensor]]
"""Converts the float network."""
ROWS = 256
NOISE = 0.02


def installed() -> tuple[dict[str, Peer], list[str]]:
    """Return converters by the name of their ratio, and the peers that are not installed."""
    found: dict[str, Peer] = {}
    missing = []
    for name, module, peers in (
        ("CrossSim", "simulator", _CROSSSIM),
        ("aihwkit", "aihwkit", _AIHWKIT),
    ):
        if find_spec(module) is None:
            missing.append(name)
        else:
            found |= peers
    return found, missing


def _crosssim(
    net: nn.Module, *, bit_serial: bool = False, slices: int = 1, noise: float = 0.0
) -> Callable[[Tensor], Tensor]:
    from simulator import CrossSimParameters
    from simulator.algorithms.dnn.torch.convert import from_torch

    given = CrossSimParameters()
    core, adc, dac = given.core, given.xbar.adc.mvm, given.xbar.dac.mvm
    core.rows_max, core.cols_max = ROWS, ROWS
    core.style = "BITSLICED" if slices > 1 else "BALANCED"
    core.weight_bits, core.bit_sliced.num_slices = 8, slices
    core.mapping.inputs.mvm.min, core.mapping.inputs.mvm.max = -1.0, 1.0
    dac.model, dac.bits = "SignMagnitudeDAC", 8
    adc.model, adc.bits, adc.adc_range_option = "SignMagnitudeADC", 8, "MAX"
    if bit_serial:
        dac.input_bitslicing, dac.slice_size, adc.adc_per_ibit = True, 1, True
    if noise:
        for errors in (given.xbar.device.programming_error, given.xbar.device.read_noise):
            errors.enable, errors.model, errors.magnitude = True, "NormalIndependentDevice", noise
    run: Callable[[Tensor], Tensor] = from_torch(net, given).eval()
    return run


def _aihwkit(net: nn.Module, *, noise: float = 0.0) -> Callable[[Tensor], Tensor]:
    from aihwkit.nn.conversion import convert_to_analog
    from aihwkit.simulator.configs import TorchInferenceRPUConfig
    from aihwkit.simulator.parameters.enums import WeightNoiseType

    given: Any = TorchInferenceRPUConfig()
    given.mapping.max_input_size = given.mapping.max_output_size = ROWS
    forward = given.forward
    forward.inp_res = forward.out_res = 1 / 254  # 8 bits
    forward.out_noise = 0.0
    if noise:
        forward.w_noise, forward.w_noise_type = noise, WeightNoiseType.ADDITIVE_CONSTANT
    run: Callable[[Tensor], Tensor] = convert_to_analog(net, given).eval()
    return run


_CROSSSIM: dict[str, Peer] = {
    "crosssim_dac_adc_ratio": _crosssim,
    "crosssim_noisy_ratio": partial(_crosssim, noise=NOISE),
    "crosssim_bit_serial_ratio": partial(_crosssim, bit_serial=True),
    "crosssim_sliced_ratio": partial(_crosssim, bit_serial=True, slices=4),
}
_AIHWKIT: dict[str, Peer] = {
    "aihwkit_dac_adc_ratio": _aihwkit,
    "aihwkit_noisy_ratio": partial(_aihwkit, noise=NOISE),
}
