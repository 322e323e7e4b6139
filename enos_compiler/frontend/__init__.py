# SPDX-License-Identifier: Apache-2.0
"""From a user's file to a traced, shaped network."""
