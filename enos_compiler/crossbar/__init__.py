# SPDX-License-Identifier: Apache-2.0
"""Crossbar arithmetic, non-idealities, cost and placement."""
