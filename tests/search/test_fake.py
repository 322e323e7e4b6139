# SPDX-License-Identifier: Apache-2.0
"""What training rounds is what the integers are."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enos_compiler.search.fake import fake_quantize, sign
from enos_compiler.semantics.quantizer import dequantize, quantize_codes, value_format

REALS = st.floats(-100, 100, width=32)


@settings(deadline=None)
@given(
    values=st.lists(REALS, min_size=1, max_size=50),
    low=st.floats(-50, 0),
    high=st.floats(0.01, 50),
    bits=st.integers(2, 8),
)
def test_forward_is_the_quantiser(values: list[float], low: float, high: float, bits: int) -> None:
    fmt = value_format((low, high), bits)
    x = torch.tensor(values, dtype=torch.float32)
    expected = dequantize(quantize_codes(x.numpy(), fmt), fmt)
    np.testing.assert_array_equal(fake_quantize(x, fmt).double().numpy(), expected)


def test_gradient_passes_inside_the_range_only() -> None:
    fmt = value_format((0.0, 1.0), 4, (0.0, float("inf")))
    x = torch.tensor([-0.5, 0.03, 0.5, 1.7], requires_grad=True)
    fake_quantize(x, fmt).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_sign_is_zero_at_zero_and_clips_its_gradient() -> None:
    x = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0], requires_grad=True)
    signs = sign(x)
    signs.sum().backward()  # type: ignore[no-untyped-call]
    assert signs.tolist() == [-1, -1, 0, 1, 1]
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0]
