# SPDX-License-Identifier: Apache-2.0
"""The shipped chips, one YAML each; they enter by entry point like anybody's."""
