# SPDX-License-Identifier: Apache-2.0
"""Comparison with the stored outputs of two public crossbar simulators.

A folder holds `crosssim.json` and `aihwkit.json` (configurations) beside `.npz` files of the same
names with arrays `<id>_w`, `<id>_x` and `<id>_y`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from enos_compiler.crossbar.analog import (
    FloatMapping,
    ValueRange,
    multiply,
    program,
    slice_bits_of,
)
from enos_compiler.crossbar.blocks import SplitRule
from enos_compiler.crossbar.cellnoise import CellNoise
from enos_compiler.crossbar.spec import (
    AdcSpec,
    CellSpec,
    CrossbarSpec,
    DacSpec,
    Encoding,
    RangeMode,
    WireSpec,
)
from enos_compiler.crossbar.tile import TileSpec, tile_multiply
from enos_compiler.errors import FormatError

Floats = npt.NDArray[np.float64]
Tool = Literal["crosssim", "aihwkit"]
TOOLS: tuple[Tool, ...] = ("crosssim", "aihwkit")
TOLERANCE = 1e-6
"""Largest difference that counts as equal, relative to the largest output of the case."""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case: the largest difference to the stored output, relative to the largest output."""

    tool: Tool
    case: str
    note: str
    error: float

    @property
    def equal(self) -> bool:
        """The difference is within `TOLERANCE`."""
        return self.error <= TOLERANCE


@dataclass(frozen=True, slots=True)
class NoiseResult:
    """One noise case: largest deviation of mean and spread, in standard errors of both samples."""

    tool: Tool
    case: str
    note: str
    mean_errors: float
    spread_errors: float


def crosssim_setup(config: dict[str, Any], weights: Floats) -> tuple[CrossbarSpec, FloatMapping]:
    """Return our configuration of one CrossSim case."""
    dac, adc, device, wires = (config[k] for k in ("dac", "adc", "device", "parasitics"))
    sliced = config["style"] == "bitsliced"
    style = config["slice_style"] if sliced else config["style"]
    encoding: Encoding = "differential"
    if style == "offset":
        encoding = "offset" if config["offset_style"] == "digital" else "unit_column"
    limits = adc["calibrated"] or []
    if limits and not isinstance(limits[0], list):
        limits = [limits]
    rules: dict[str, SplitRule] = {"equal": "equal", "max": "max"}
    spec = CrossbarSpec(
        rows=config["rows_max"] or weights.shape[1],
        columns=config["cols_max"] or weights.shape[0],
        cell=CellSpec(
            bits=device["cell_bits"],
            r_on_ohm=device["Rmin"],
            r_off_ohm=inf if device["infinite_on_off"] else device["Rmax"],
            cubic_read_v=device["cubic_vread"],
        ),
        encoding=encoding,
        subtract_before_adc=config["subtract_before_adc"],
        interleaved=config["interleaved"],
        dac=DacSpec(
            digit_bits=dac["slice_size"] if dac["input_bitslicing"] else None,
            law="ideal" if dac["model"] == "none" else dac["model"],
            signed=dac["signed"],
        ),
        adc=AdcSpec(
            bits=adc["bits"],
            law="ideal" if adc["model"] == "none" else adc["model"],
            per_digit=adc["per_ibit"],
            range_mode=_RANGE_MODES[adc["range"]],
            limits=tuple((low, high) for low, high in limits),
            gain_db=adc.get("gain_db", 100.0),
            symmetric_cdac=adc.get("symmetric_cdac", True),
        ),
        wires=WireSpec(
            row_ohm=wires["Rp_row"],
            column_ohm=wires["Rp_col"],
            row_terminal_ohm=wires["Rp_row_terminal"],
            column_terminal_ohm=wires["Rp_col_terminal"],
            supply_lines=not wires["current_from_input"],
            unused_rows=wires["selected_rows"],
            terminal_on_row_zero=True,
        )
        if wires["enable"]
        else WireSpec(),
        column_current_limit=config["Icol_max"] or inf,
    )
    scale, bits = config["weights"], config["weights"]["bits"]
    differential = encoding == "differential"
    mapping = FloatMapping(
        weight_bits=bits,
        slice_bits=slice_bits_of(bits, config["num_slices"], differential) if sliced else None,
        input_bits=dac["bits"],
        weight_range=ValueRange(scale["min"], scale["max"], scale["percentile"]),
        input_range=ValueRange(**{_RANGE[k]: v for k, v in config["inputs"].items()}),
        clip_weights=scale["clipping"],
        two_sided=config["balanced_style"] == "two_sided",
        row_split=rules[scale["row_split"]],
        column_split=rules[scale["col_split"]],
    )
    return spec, mapping


_RANGE_MODES: dict[str, RangeMode] = {
    "max": "full",
    "granular": "granular",
    "calibrated": "calibrated",
}
_RANGE = {"min": "low", "max": "high", "percentile": "percentile"}
_TILE_FIELDS = {
    "is_perfect": "perfect",
    "mv_type": "passes",
    "noise_management": "input_scale",
    "nm_thres": "input_scale_limit",
    "nm_assumed_wmax": "assumed_weight_max",
    "bound_management": "bound_rule",
    "max_bm_factor": "max_bound_factor",
    "max_bm_res": "max_bound_res",
    "bm_test_negative_bound": "test_negative_bound",
}


def aihwkit_setup(config: dict[str, Any]) -> TileSpec:
    """Return our configuration of one aihwkit case."""
    known = set(TileSpec.__dataclass_fields__)
    values = {_TILE_FIELDS.get(k, k): v for k, v in config["io"].items()}
    mapping = config["mapping"]
    return TileSpec(
        **{k: v for k, v in values.items() if k in known},
        weight_omega=mapping["weight_scaling_omega"],
        weight_scale_per_output=mapping["weight_scaling_columnwise"],
        max_inputs=mapping["max_input_size"],
        max_outputs=mapping["max_output_size"],
        whole_batch=config["torch_tile"],
    )


def _load(folder: Path, tool: Tool) -> tuple[dict[str, Any], dict[str, Floats]]:
    try:
        with (folder / f"{tool}.json").open(encoding="utf-8") as file:
            text: dict[str, Any] = json.load(file)
        with np.load(folder / f"{tool}.npz", allow_pickle=False) as arrays:
            return text, {k: arrays[k] for k in arrays.files}
    except (OSError, ValueError) as error:
        raise FormatError(
            f"the {tool} cases cannot be read: {error}",
            place=str(folder),
            remedy="a folder with crosssim.json, crosssim.npz, aihwkit.json and aihwkit.npz",
        ) from error


def _relative(ours: npt.NDArray[np.floating[Any]], theirs: Floats) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def compare_cases(folder: Path) -> Iterator[CaseResult]:
    """Compute every stored case of both tools and yield its difference."""
    for tool in TOOLS:
        text, arrays = _load(folder, tool)
        for case in text["cases"]:
            name = case["id"]
            w, x, y = (arrays[f"{name}_{k}"] for k in "wxy")
            if tool == "crosssim":
                spec, mapping = crosssim_setup(case["config"], w)
                ours: npt.NDArray[np.floating[Any]] = multiply(program(spec, mapping, w), x)
            else:
                ours = tile_multiply(aihwkit_setup(case["config"]), w, x)
            yield CaseResult(tool, name, case["note"], _relative(ours, y))


def _crosssim_draws(case: dict[str, Any], draws: int, rng: np.random.Generator) -> Floats:
    """Outputs (outputs, draws) of one CrossSim noise case."""
    w, x = np.array(case["w"]), np.array(case["x"])[:, None]
    spec, mapping = crosssim_setup(case["config"], w)
    kinds: dict[str, CellNoise] = {}
    for name, noise in case["noise"].items():
        kind = "proportional" if noise["model"] == "normal_proportional" else "independent"
        kinds[name] = CellNoise(noise["magnitude"], kind)  # type: ignore[arg-type]
    error, read_noise = kinds.get("programming_error"), kinds.get("read_noise")
    if error is None:
        matrix = program(spec, mapping, w)
        return multiply(matrix, np.tile(x, draws), read_noise=read_noise, rng=rng)
    return np.hstack(
        [
            multiply(
                program(spec, mapping, w, error=error, rng=rng), x, read_noise=read_noise, rng=rng
            )
            for _ in range(draws)
        ]
    )


def _aihwkit_draws(case: dict[str, Any], draws: int, rng: np.random.Generator) -> Floats:
    """Outputs (outputs, draws) of one aihwkit noise case."""
    x = np.tile(np.array(case["x"])[:, None], draws)
    spec = aihwkit_setup(case["config"])
    return tile_multiply(spec, np.array(case["w"]), x, rng=rng).astype(np.float64)


def compare_noise(folder: Path, *, draws: int = 2000, seed: int = 0) -> Iterator[NoiseResult]:
    """Draw every noise case and yield how far mean and spread lie from the stored ones.

    The standard error of a mean is s / sqrt(n), that of a standard deviation s / sqrt(2 n); those
    of both samples add in squares.
    """
    rng = np.random.default_rng(seed)
    for tool in TOOLS:
        text, _ = _load(folder, tool)
        for case in text["noise_cases"]:
            sample = (_crosssim_draws if tool == "crosssim" else _aihwkit_draws)(case, draws, rng)
            theirs = np.array(case["std"])
            error = theirs * np.sqrt(1 / draws + 1 / case["draws"])
            mean = np.abs(sample.mean(axis=1) - case["mean"]) / error
            spread = np.abs(sample.std(axis=1) - theirs) / error * np.sqrt(2)
            yield NoiseResult(
                tool, case["id"], case["note"], float(mean.max()), float(spread.max())
            )
