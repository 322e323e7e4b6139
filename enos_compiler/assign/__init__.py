# SPDX-License-Identifier: Apache-2.0
"""Scores and costs to an exact assignment."""
