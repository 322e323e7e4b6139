# SPDX-License-Identifier: Apache-2.0
"""The passes canonicalize and calibrate, run by the pipeline."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import networks
import pytest
import torch
from enos_compiler.passes.calibrate import Calibrate
from enos_compiler.passes.canonicalize import Canonicalize
from torch import nn

from enos_compiler.errors import FrontendError, UsageError
from enos_compiler.frontend.trace import trace
from enos_compiler.frontend.user import UserModel
from enos_compiler.ir.network import Network
from enos_compiler.pipeline import Context, Pass, Pipeline
from enos_compiler.semantics import registry


def run(user: UserModel, *passes: Pass, allow_float: bool = False) -> Network:
    context = Context(target=cast("Any", None), user=user, allow_float=allow_float)
    return Pipeline(passes).run(trace(user), context)


def test_ranges_come_from_training_images_where_they_are_asked_for() -> None:
    images = [(torch.full((3,), float(i)), 0) for i in range(200)]
    user = UserModel.from_module(nn.Linear(3, 2), (torch.zeros(4, 3),), data={"train": images})
    network = run(user, Canonicalize(), Calibrate(images=128))
    assert network.facts == {"shaped", "calibrated"}
    assert network.values[network.inputs[0]].range == (0.0, 127.0)
    assert network.sections["calibrate"] == {"source": "training images", "images": 128}
    network = run(user, Canonicalize(), Calibrate())
    assert network.values[network.inputs[0]].range == (0.0, 0.0)
    assert network.sections["calibrate"] == {"source": "example inputs", "images": 4}


def test_training_images_are_not_opened_where_none_are_wanted() -> None:
    def never() -> None:
        raise AssertionError

    user = UserModel.from_module(nn.Linear(3, 2), (torch.zeros(4, 3),), data={"train": never})
    run(user, Canonicalize(), Calibrate())


def test_a_negative_number_of_images_is_refused() -> None:
    user = UserModel.from_module(nn.Linear(3, 2), (torch.zeros(4, 3),))
    with pytest.raises(UsageError, match="images=-1"):
        run(user, Canonicalize(), Calibrate(images=-1))


def test_float_islands_need_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation without an integer form stays only where floating point is allowed."""
    real = registry.vector_op

    def without_integers(name: str) -> object:
        return SimpleNamespace(is_float=True) if name == "layer_norm" else real(name)

    model, inputs = networks.build("vit")
    user = UserModel.from_module(model, inputs)
    assert not any(v.is_float for v in run(user, Canonicalize()).vectors.values())
    monkeypatch.setattr(registry, "vector_op", without_integers)
    allowed = run(user, Canonicalize(), allow_float=True)
    assert {v.op for v in allowed.vectors.values() if v.is_float} == {"layer_norm"}
    with pytest.raises(FrontendError, match="`layer_norm` has no integer form") as raised:
        run(user, Canonicalize())
    assert "attention.py:" in str(raised.value.place)
    assert "--allow-float" in str(raised.value.remedy)
