# SPDX-License-Identifier: Apache-2.0
"""The compiled look-up of weights is the plain one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from enos_compiler.search import tables
from enos_compiler.search.tables import bank, compose

BANKS = {
    "one plain": (("mac", 8),),
    "one signed": (("xnor", 1),),
    "all parts": (("mac", 8), ("mf", 4), ("shift", 3), ("bw", 1), ("xnor", 1), ("ef", 4)),
}


@pytest.mark.parametrize("shape", [(6, 5, 3, 3), (7, 40), (4, 3, 5)])
@pytest.mark.parametrize("kind", BANKS)
def test_compiled_look_up_is_the_plain_one(
    kind: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codes and halves equal, gradients within float32."""
    pytest.importorskip("numba")
    draws = torch.Generator().manual_seed(3)
    values = 0.1 * torch.randn(shape, generator=draws)
    values[1].fill_(0.0)  # a dead channel
    values[2, 0] = 99.0  # far beyond the reach of the tables
    upstream = torch.randn((2, *shape), generator=draws)
    found: list[list[Tensor | None]] = []
    for least in (1, 10**9):
        monkeypatch.setattr(tables, "LEAST", least)
        weight = values.clone().requires_grad_()
        shares = torch.linspace(0.1, 0.9, len(BANKS[kind])).requires_grad_()
        halves = compose(weight, shares, bank(BANKS[kind]))
        parts = [(h * g).sum() for h, g in zip(halves, upstream, strict=True) if h is not None]
        torch.stack(parts).sum().backward()  # type: ignore[no-untyped-call]
        found.append([*halves, weight.grad, shares.grad])
    for ours, theirs in zip(*found, strict=True):
        if theirs is None:
            assert ours is None
        else:
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_an_undefined_weight_marks_its_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr(tables, "LEAST", 1)
    weight = torch.ones(3, 8)
    weight[1, 2] = torch.nan
    plain, _ = compose(weight, torch.ones(1), bank((("mac", 8),)))
    assert plain is not None
    assert bool(plain[1].isnan().all())
    assert not bool(plain[[0, 2]].isnan().any())
