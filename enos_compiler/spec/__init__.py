# SPDX-License-Identifier: Apache-2.0
"""Target files: strict models, loading, units, error paths."""
