# SPDX-License-Identifier: Apache-2.0
"""The network between passes: layers, shapes, choices, costs, programs."""
