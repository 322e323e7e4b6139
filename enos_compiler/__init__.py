# SPDX-License-Identifier: Apache-2.0
"""A compiler for neural networks on hybrid accelerators."""
