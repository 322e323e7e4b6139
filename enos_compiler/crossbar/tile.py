# SPDX-License-Identifier: Apache-2.0
"""Behavioural tile: signed real weights, inputs rescaled per vector, errors referred to the output.

The rules are those of aihwkit 1.2.0's inference tile (seen; see the cases under the tests), in
single precision where a rounding hangs on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from enos_compiler.crossbar.blocks import split

Floats = npt.NDArray[np.float32]
F32 = np.float32
InputScale = Literal["none", "abs_max", "max", "constant", "abs_max_np_sum"]
BoundRule = Literal["none", "iterative", "iterative_worst_case"]
Passes = Literal["one_pass", "pos_neg_separate", "pos_neg_separate_digital_sum"]
WeightNoise = Literal["none", "additive_constant", "pcm_read"]


@dataclass(frozen=True, slots=True)
class TileSpec:
    """Converters and errors of a tile; the unit is one full weight times one full input."""

    perfect: bool = False
    """Nothing but the product and `out_scale`."""
    passes: Passes = "one_pass"
    """Negative and positive inputs together, in two products, or in two conversions."""
    inp_bound: float = 1.0
    inp_res: float = 1 / 254
    """A fraction of twice the bound, or a count of steps where above 1; 0 or less is off."""
    inp_asymmetry: float = 0.0
    inp_noise: float = 0.0
    out_bound: float = 12.0
    out_res: float = 1 / 254
    out_noise: float = 0.0
    out_scale: float = 1.0
    out_asymmetry: float = 0.0
    out_nonlinearity: float = 0.0
    slope_calibration: float = 0.0
    r_series: float = 0.0
    v_offset_w_min: float = -1.0
    w_noise: float = 0.0
    w_noise_type: WeightNoise = "none"
    ir_drop: float = 0.0
    ir_drop_g_ratio: float = 571428.5714285714
    """Wire conductance between cells over the highest cell conductance."""
    input_scale: InputScale = "abs_max"
    input_scale_limit: float = 0.0
    """Upper limit of abs_max, or the constant; 0 is none."""
    assumed_weight_max: float = 0.6
    bound_rule: BoundRule = "none"
    max_bound_factor: int = 1000
    max_bound_res: float = 0.25
    test_negative_bound: bool = True
    weight_omega: float = 1.0
    """Largest tile weight after scaling; 0 leaves the weights as they are."""
    weight_scale_per_output: bool = False
    max_inputs: int = 512
    max_outputs: int = 512
    whole_batch: bool = False
    """Bound management tests and repeats the whole batch at once."""

    @property
    def inp_step(self) -> float:
        """Step of the driver, 0 where off."""
        return _step(self.inp_res, self.inp_bound)

    @property
    def out_step(self) -> float:
        """Step of the converter, 0 where off."""
        return _step(self.out_res, self.out_bound)


def _step(res: float, bound: float) -> float:
    if res <= 0:
        return 0.0
    return 2 * bound / res if res > 1 else 2 * bound * res


def tile_multiply(
    spec: TileSpec,
    weights: npt.NDArray[np.floating],
    inputs: npt.NDArray[np.floating],
    *,
    rng: np.random.Generator | None = None,
) -> Floats:
    """Product (outputs, B) of weights (outputs, inputs) with columns (inputs, B).

    Noise is drawn where `rng` is given; without it the same tile is noiseless.
    """
    w, x = weights.astype(F32), inputs.astype(F32)
    y = np.zeros((w.shape[0], x.shape[1]), F32)
    for columns in split(w.shape[0], spec.max_outputs, "even"):
        for rows in split(w.shape[1], spec.max_inputs, "even"):
            part = w[columns, rows]
            factor = _weight_factor(spec, part)
            out = _forward(spec, (part / factor).astype(F32), x[rows], rng)
            y[columns] += out * F32(spec.out_scale) * factor
    return y


def _weight_factor(spec: TileSpec, w: Floats) -> Floats:
    """Factor that leaves the tile before the product and returns after the converter."""
    if spec.weight_omega <= 0:
        return np.ones((1, 1), F32)
    top = np.abs(w).max(axis=1 if spec.weight_scale_per_output else None, keepdims=True)
    return np.asarray(np.where(top > 0, top, 1) / F32(spec.weight_omega), F32)


def _scale_by_sum(spec: TileSpec, x: Floats) -> Floats:
    """Scale under which the expected largest output stays within the bound."""
    top = np.abs(x).max(axis=0)
    sums = np.maximum(np.maximum(x, 0).sum(axis=0), np.maximum(-x, 0).sum(axis=0))
    limit = np.full_like(top, np.inf)
    if spec.inp_step:
        limit = top * F32(spec.max_bound_res / spec.inp_step)
    wanted = sums * F32(spec.assumed_weight_max / spec.out_bound)
    return np.asarray(np.maximum(top, np.minimum(wanted, limit)), F32)


def _input_scale(spec: TileSpec, x: Floats) -> Floats:
    """Scale of every vector, (B,)."""
    if spec.input_scale == "abs_max":
        top = np.abs(x).max(axis=0)
        limit = spec.input_scale_limit
        return np.asarray(np.minimum(top, F32(limit)) if limit > 0 else top, F32)
    if spec.input_scale == "max":
        return np.asarray(x.max(axis=0), F32)
    if spec.input_scale == "abs_max_np_sum":
        return _scale_by_sum(spec, x)
    constant = spec.input_scale_limit if spec.input_scale == "constant" else 1.0
    return np.full(x.shape[1], constant if constant > 0 else 1.0, F32)


def _forward(spec: TileSpec, w: Floats, x: Floats, rng: np.random.Generator | None) -> Floats:
    """Scale, convert, and repeat with smaller inputs while the bound rule asks for it."""
    if spec.perfect:
        return np.asarray(w @ x, F32)
    scale = _input_scale(spec, x)
    live = scale > 0
    scale = np.where(live, scale, F32(1))
    factor = np.ones_like(scale)
    y, failed = _round(spec, w, x * (F32(1) / scale / factor), rng)
    again = failed & live & (spec.bound_rule != "none")
    worst = spec.bound_rule == "iterative_worst_case"
    while again.any():
        if spec.whole_batch:
            again = again | np.bool_(True)
        if worst:
            worst = False
            if spec.input_scale != "none":
                scale = np.where(again, _scale_by_sum(spec, x), scale)
        else:
            factor = np.where(again, factor * F32(2), factor)
        new, failed = _round(spec, w, x * (F32(1) / scale / factor), rng)
        y = np.where(again, new, y)
        spent = factor > spec.max_bound_factor
        if spec.inp_step:
            spent |= factor > spec.max_bound_res / spec.inp_step
        again = again & failed & ~spent
    return np.asarray(y * np.where(live, scale * factor, F32(0)), F32)


def _round(
    spec: TileSpec, w: Floats, v: Floats, rng: np.random.Generator | None
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """One use of the array: outputs, and which vectors left the output bound."""
    if spec.inp_step:
        step = F32(spec.inp_step)
        v = np.rint(v / step) * step
    v = np.clip(v, F32(-spec.inp_bound), F32(spec.inp_bound))
    v = np.where(v < 0, v * F32(1 - spec.inp_asymmetry), v).astype(F32)
    if spec.passes == "one_pass":
        return _convert(spec, _product(spec, w, v, rng))
    halves = [_product(spec, w, part, rng) for part in (np.minimum(v, 0), np.maximum(v, 0))]
    if spec.passes == "pos_neg_separate":
        return _convert(spec, halves[0] + halves[1])
    (low, failed_low), (high, failed_high) = (_convert(spec, h) for h in halves)
    return low + high, failed_low | failed_high


def _product(spec: TileSpec, w: Floats, v: Floats, rng: np.random.Generator | None) -> Floats:
    """Analog product with wires, series resistance, compression and noise."""
    y = w @ v
    n = w.shape[1]
    if spec.ir_drop:
        load = F32(n / spec.ir_drop_g_ratio) * (np.abs(w) @ np.abs(v))
        c = load * (F32(0.05) * load**2 - F32(0.2) * load + F32(0.5))
        place = 1 - (1 - np.arange(n, dtype=F32) / F32(n)) ** 2
        y = y - c * F32(spec.ir_drop) * (w @ (place[:, None] * v))
    if spec.r_series:
        r = F32(spec.r_series)
        ref = F32(-spec.v_offset_w_min) * v.sum(axis=0) if spec.v_offset_w_min else F32(0)
        y = (y + ref) / (1 + r * np.abs(y + ref)) - ref / (1 + r * np.abs(ref))
    k = spec.out_nonlinearity / spec.out_bound
    if k or spec.r_series:
        slope = 1 + (k + spec.r_series) * spec.slope_calibration * spec.out_bound
        gain = slope**2 if spec.slope_calibration > 0 else 1.0
        y = y * F32(gain) / (1 + F32(k) * np.abs(y))
    if rng is not None:
        y = y + _noise(spec, w, v, rng)
    return np.asarray(y, F32)


def _noise(spec: TileSpec, w: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """One draw of all output-referred noises; variances add."""
    variance = np.full((w.shape[0], v.shape[1]), spec.out_noise**2)
    if spec.w_noise_type == "additive_constant":
        variance += spec.w_noise**2 * (v**2).sum(axis=0)
    elif spec.w_noise_type == "pcm_read":
        variance += spec.w_noise**2 * (np.abs(w) @ v**2)
    variance += spec.inp_noise**2 * (w**2).sum(axis=1, keepdims=True)
    return np.asarray(np.sqrt(variance) * rng.standard_normal(variance.shape), F32)


def _convert(spec: TileSpec, y: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Asymmetry, rounding, clipping; the last output out of range decides for its vector."""
    y = np.where(y < 0, y * F32(1 - spec.out_asymmetry), y)
    if spec.out_step:
        step = F32(spec.out_step)
        y = np.rint(y / step) * step
    bound = F32(spec.out_bound)
    outside = np.abs(y) > bound
    last = y.shape[0] - 1 - np.argmax(outside[::-1], axis=0)
    deciding = np.take_along_axis(y, last[None], axis=0)[0]
    failed = outside.any(axis=0) & ((deciding > 0) | spec.test_negative_bound)
    return np.clip(y, -bound, bound).astype(F32), failed
