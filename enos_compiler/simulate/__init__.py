# SPDX-License-Identifier: Apache-2.0
"""Replays a program: what it computes, how long it takes, what it counts."""
