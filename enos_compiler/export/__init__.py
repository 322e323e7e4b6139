# SPDX-License-Identifier: Apache-2.0
"""ONNX and other formats that leave the compiler."""
