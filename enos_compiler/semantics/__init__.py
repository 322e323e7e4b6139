# SPDX-License-Identifier: Apache-2.0
"""The integer meaning of a quantised network, in numpy."""
