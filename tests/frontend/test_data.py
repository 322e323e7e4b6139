# SPDX-License-Identifier: Apache-2.0
"""Faulty data are one message with the split, the item and what was expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import enos_compiler
from enos_compiler.errors import FrontendError
from enos_compiler.frontend.canonical import lower
from enos_compiler.frontend.data import Data, as_data
from enos_compiler.frontend.trace import trace
from enos_compiler.frontend.user import UserModel
from enos_compiler.ir.network import Network

COUNT, CLASSES = 8, 3


def network(model: nn.Module | None = None, *examples: Tensor) -> Network:
    model = model or nn.Linear(4, CLASSES)
    return lower(trace(UserModel.from_module(model, examples or (torch.rand(2, 4),))))


def items() -> list[Any]:
    return [(torch.full((4,), float(i)), i % CLASSES) for i in range(COUNT)]


def with_item(index: int, item: Any) -> list[Any]:
    return [*items()[:index], item, *items()[index + 1 :]]


def error_of(split: Any, name: str = "train", **rest: Any) -> str:
    data = Data(**{name: split}, batch_size=4, **rest).for_network(network())
    with pytest.raises(FrontendError) as raised:
        list(data.batches(name))  # type: ignore[arg-type]
    return str(raised.value)


X, Y = torch.rand(COUNT, 4), torch.arange(COUNT) % CLASSES
NAN = torch.tensor([0.0, torch.nan, 0.0, 0.0])
PAIR = "return (input, target) for each index"
INDICES = "give class indices 0..2, or give data() a loss"


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (
            (X, Y),
            "train split: the split is a tuple of two tensors, not a map-style dataset\n"
            "  try: torch.utils.data.TensorDataset(X, Y)",
        ),
        (
            [X.numpy(), Y.numpy()],
            "train split: the split is a list of two tensors, not a map-style dataset\n"
            "  try: torch.utils.data.TensorDataset(X, Y)",
        ),
        (
            X,
            f"train split, item 0: the item is a Tensor, not a pair (input, target)\n  try: {PAIR}",
        ),
        (
            with_item(5, (X[0], 1, 2)),
            "train split, item 5: the item is a tuple of 3, not a pair (input, target)\n"
            f"  try: {PAIR}",
        ),
        (
            with_item(0, {"x": X[0], "y": 1}),
            f"train split, item 0: the item is a dict, not a pair (input, target)\n  try: {PAIR}",
        ),
        (
            with_item(1, ("a.png", 1)),
            "train split, item 1: the input is a str, not a tensor or an array\n"
            "  try: turn it into a torch.Tensor",
        ),
        (
            with_item(1, (X[0], "cat")),
            "train split, item 1: the target is a str, not a tensor or an array\n"
            "  try: turn it into a torch.Tensor",
        ),
        (
            with_item(2, (torch.rand(1, 4), 1)),
            "train split, item 2: the input has shape (1, 4), the network reads (4,)\n"
            "  try: give items the shape of the example inputs, without the batch",
        ),
        (
            with_item(0, (np.zeros(4), 1)),
            "train split, item 0: the input is float64, the network reads float32\n"
            "  try: convert it: x.to(torch.float32)",
        ),
        (
            with_item(6, (NAN, 1)),
            "train split, item 6: the input holds NaN\n  try: check where it is read",
        ),
        (
            with_item(3, (torch.full((4,), -torch.inf), 1)),
            "train split, item 3: the input holds infinity\n  try: check where it is read",
        ),
        (
            with_item(7, (X[0], CLASSES)),
            "train split, item 7: the target is 3, the network answers classes 0..2\n"
            "  try: number the classes from 0, or give the network an output for each",
        ),
        (
            with_item(4, (X[0], -1)),
            "train split, item 4: the target is -1, the network answers classes 0..2\n"
            "  try: number the classes from 0, or give the network an output for each",
        ),
        (
            TensorDataset(X, Y.float()),
            "train split, item 0: the target is float32, the default loss (cross entropy) takes "
            f"integers\n  try: {INDICES}",
        ),
        (
            TensorDataset(X, Y[:, None]),
            "train split, item 0: the target has shape (1,), the default loss (cross entropy) "
            f"takes class indices of shape ()\n  try: {INDICES}",
        ),
        (
            with_item(2, (X[0], torch.tensor(1, dtype=torch.int32))),
            "train split, item 2: the target is int32 of shape (), that of item 0 is int64 of "
            "shape ()\n  try: give all items one shape and type",
        ),
    ],
)
def test_faulty_training_data(split: Any, message: str) -> None:
    assert error_of(split) == message


def test_an_item_that_cannot_be_read_names_the_users_line() -> None:
    class Broken:
        def __len__(self) -> int:
            return COUNT

        def __getitem__(self, index: int) -> Any:
            raise KeyError(f"image {index}")

    message = error_of(Broken(), "validation")
    assert message.startswith(
        "validation split, item 0: reading it raised KeyError: 'image 0' (at "
    )
    assert "test_data.py:" in message
    assert message.endswith(")\n  try: read this item by itself and repair the data set")


def test_targets_of_a_users_loss_and_of_untrained_splits_are_their_own() -> None:
    real = TensorDataset(X, X)
    data = Data(train=real, test=real, loss=nn.functional.mse_loss).for_network(network())
    assert [len(x) for x, _ in data.batches("train")] == [COUNT]
    for targets in (X, X[:, 0], Y[:, None]):
        other = Data(test=TensorDataset(X, targets)).for_network(network())
        assert [len(x) for x, _ in other.batches("test")] == [COUNT]
    assert "item 1: the target is 9" in error_of(with_item(1, (X[0], 9)), "test")
    left_out = Data(train=with_item(1, (X[0], -100))).for_network(network())
    assert len(list(left_out.batches("train"))) == 1


def test_pixel_targets_name_the_item() -> None:
    pixels = network(nn.Conv2d(2, CLASSES, 1), torch.rand(1, 2, 3, 3))
    labels = torch.zeros(4, 3, 3, dtype=torch.int64)
    images = torch.rand(4, 2, 3, 3)
    split = TensorDataset(images, labels)
    assert len(list(Data(train=split).for_network(pixels).batches("train"))) == 1
    labels[2, 1, 0] = 7
    with pytest.raises(FrontendError, match="train split, item 2: the target is 7, the network"):
        list(Data(train=split).for_network(pixels).batches("train"))


def test_a_network_of_two_inputs_takes_no_data() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.layer(x + y)  # type: ignore[no-any-return]

    two = network(Two(), torch.rand(2, 4), torch.rand(2, 4))
    with pytest.raises(FrontendError) as raised:
        list(Data(train=items()).for_network(two).batches("train"))
    assert str(raised.value) == (
        "train split: the network has 2 inputs, data() gives one per item\n"
        "  try: --search sensitivity, which needs no data"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": 0}, "data(): batch_size is 0\n  try: batch_size=64"),
        (
            {"loss": "mse"},
            "data(): the loss is a str, not a function\n  try: give a function (output, target) "
            "-> scalar, or none for cross entropy",
        ),
    ],
)
def test_faulty_settings(given: dict[str, Any], message: str) -> None:
    with pytest.raises(FrontendError) as raised:
        as_data({"train": items(), **given}, "net.py:3")
    assert str(raised.value) == message


def fails(_output: Tensor, _target: Tensor) -> Tensor:
    raise ValueError("no")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": with_item(7, (NAN, 1))}, "train split, item 7: the input holds NaN"),
        ({"validation": with_item(5, (X[0], 9))}, "validation split, item 5: the target is 9"),
        ({"test": with_item(5, (X[0][:2], 1))}, r"test split, item 5: the input has shape \(2,\)"),
        ({"loss": fails}, "the loss raised ValueError: no"),
        ({"loss": lambda y, _: y}, r"the loss returned shape \(8, 3\), not a scalar tensor"),
    ],
)
def test_a_compilation_names_the_fault(given: dict[str, Any], message: str) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    data: dict[str, Any] = {"train": items(), "validation": items(), "test": items(), **given}
    with pytest.raises(FrontendError, match=message):
        enos_compiler.compile(
            model, (X[:2],), data=Data(**data, batch_size=8), epochs=1, finetune=0
        )


def test_items_are_read_at_first_use_alone() -> None:
    opened: list[str] = []

    def split(name: str) -> Callable[[], Any]:
        def read() -> list[Any]:
            opened.append(name)
            return items()

        return read

    data = Data(train=split("train"), test=split("test")).for_network(network())
    assert opened == []
    for _ in range(2):
        list(data.batches("test"))
    assert opened == ["test"]
