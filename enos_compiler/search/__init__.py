# SPDX-License-Identifier: Apache-2.0
"""Differentiable search and training."""
