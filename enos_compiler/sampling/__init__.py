# SPDX-License-Identifier: Apache-2.0
"""Sampling inside SRAM: mixtures as integers, bit-true chains, what a device adds, diagnostics."""
