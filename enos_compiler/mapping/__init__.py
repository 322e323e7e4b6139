# SPDX-License-Identifier: Apache-2.0
"""Loop-nest counts and the optimal mapper of digital cores."""
