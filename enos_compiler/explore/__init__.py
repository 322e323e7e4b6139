# SPDX-License-Identifier: Apache-2.0
"""Bits of every layer, mappings and hardware searched together, on one machine or on a cluster."""
