# SPDX-License-Identifier: Apache-2.0
"""Task graph, buffers, timing."""
