# SPDX-License-Identifier: Apache-2.0
"""The shipped passes, one file each; they enter by entry point like anybody's."""
