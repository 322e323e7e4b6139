# SPDX-License-Identifier: Apache-2.0
"""The compiled network at the speed of torch: accuracy on real data, device by device."""
