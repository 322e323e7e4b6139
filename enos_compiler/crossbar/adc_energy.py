# SPDX-License-Identifier: Apache-2.0
"""Published formulas for the energy of one conversion; a study uses one family and names it."""

from __future__ import annotations

from math import ceil, exp, log, log10

from enos_compiler.crossbar.events import Figure
from enos_compiler.errors import SpecError

SURVEY = "ADC survey of B. Murmann, 1997-2025"


def _sndr_db(enob: float) -> float:
    return 6.02 * enob + 1.76


def survey_best(enob: float) -> Figure:
    """Energy of the best published converters at any rate, 0.267 + 1.446e-7 * 4^ENOB pJ.

    Source: the survey's own envelope rule on its 2025 file (seen).
    """
    return Figure(0.267 + 1.446e-7 * 4**enob, "pJ", f"{SURVEY}: envelope")


def survey_best_at_rate(enob: float, samples_per_s: float) -> Figure:
    """Energy of the best published converters at a sampling rate.

    max(0.267, 0.5e12 * 10^((SNDR - FOM) / 10)) pJ, FOM = min(186.4, 263.7 - 10 log10 fs) dB.
    Source: fitted to the survey, corner at 53 MS/s (seen).
    """
    fom = min(186.4, 263.7 - 10 * log10(samples_per_s))
    value = max(0.267, 0.5e12 * 10 ** ((_sndr_db(enob) - fom) / 10))
    return Figure(value, "pJ", f"{SURVEY}: fit with rate")


def survey_typical(enob: float, samples_per_s: float, node_nm: float) -> Figure:
    """Energy of a typical published converter, right within a factor of 4.4.

    ln E = -7.076 + 0.509 ENOB + 0.0046 ln fs + 1.661 ln node. Source: regression (seen).
    """
    value = exp(-7.076 + 0.509 * enob + 0.0046 * log(samples_per_s) + 1.661 * log(node_nm))
    return Figure(value, "pJ", f"{SURVEY}: regression over all designs")


BEST_FIFTH_FROM = 5
"""Fewest bits that the fit to the best fifth holds for."""


def survey_best_fifth(bits: float, samples_per_s: float, node_nm: float) -> Figure:
    """Energy of the best fifth of published converters, valid from 5 bits on.

    Source: the ADC plug-in of Accelergy as CiMLoop uses it (seen).

    Raises:
        SpecError: below 5 bits, where the fit turns upwards.
    """
    if bits < BEST_FIFTH_FROM:
        raise SpecError(
            f"the best-fifth fit rises again below {BEST_FIFTH_FROM} bits, asked for {bits}",
            place="adc.bits",
            remedy="another family for narrow converters, for example in_memory_sar",
        )
    figure = min(213.781 - 2.8719 * log(samples_per_s), 128.307 + 3.2205 * ceil(bits))
    scale = exp(26.0496 + 1.8800 * log(node_nm) - 2.8291 * log(bits) - 1.4702)
    value = 0.5 * 10 ** ((_sndr_db(bits) - figure) / 10) * scale
    return Figure(value, "pJ", f"{SURVEY}: best fifth, Accelergy ADC plug-in")


def in_memory_sar(bits: int, vdd_v: float) -> Figure:
    """Energy of a converter built beside the array, (100 b + 0.001 * 4^b) fF VDD^2.

    Source: ZigZag-IMC, fitted to three macros of 22-28 nm (seen).
    """
    value = (100 * bits + 0.001 * 4**bits) * vdd_v**2 * 1e-3
    return Figure(value, "pJ", "ZigZag-IMC, 22-28 nm macros")


def in_memory_dac(bits: int, vdd_v: float) -> Figure:
    """Energy of driving one row with `bits` bits, 50 b fF VDD^2, nothing at one bit.

    Source: ZigZag-IMC (seen).
    """
    value = 0.0 if bits == 1 else 50 * bits * vdd_v**2 * 1e-3
    return Figure(value, "pJ", "ZigZag-IMC, 22-28 nm macros")
