# SPDX-License-Identifier: Apache-2.0
"""Items of a user's split to one checked batch: what is wrong is named with its split and index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from enos_compiler.errors import EnosError, FrontendError
from enos_compiler.ir.network import Network

if TYPE_CHECKING:
    from torch import Tensor

LEFT_OUT = -100
"""The class index that cross entropy leaves out by default."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a network reads of one item and what it answers, both without the batch."""

    inputs: int
    """How many inputs it has; data give one."""
    shape: tuple[int, ...]
    dtype: str
    answer: tuple[int, ...]
    """Shape of the first output."""

    @classmethod
    def of(cls, network: Network) -> Expected:
        """Return what a traced network expects."""
        read = network.values[network.inputs[0]]
        answer = network.values[network.outputs[0]].shape[1:]
        return cls(len(network.inputs), read.shape[1:], read.dtype, answer)


@dataclass(frozen=True, slots=True)
class Checker:
    """Reads batches of one split.

    Args:
        split: its name.
        dataset: map-style, of (input, target).
        expected: by the network; None where there is no network yet.
        default_loss: whether targets are for cross entropy.
    """

    split: str
    dataset: Any
    expected: Expected | None
    default_loss: bool

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the inputs and the targets of some items, each stacked along a new leading axis.

        Raises:
            FrontendError: an item cannot be read, is no pair, or is not what the network and the
                loss take.
        """
        if self.expected is not None and self.expected.inputs != 1:
            raise FrontendError(
                f"the network has {self.expected.inputs} inputs, data() gives one per item",
                place=f"{self.split} split",
                remedy="--search sensitivity, which needs no data",
            )
        items = [self._item(i) for i in indices]
        inputs = self._stacked("input", indices, [x for x, _ in items])
        targets = self._stacked("target", indices, [y for _, y in items])
        if self.default_loss and self.expected is not None:
            self._check_classes(indices, targets, self.expected.answer)
        return inputs, targets

    def _item(self, index: int) -> tuple[Any, Any]:
        from enos_compiler.frontend.place import place_of_error

        try:
            item = self.dataset[index]
        except EnosError:
            raise
        except Exception as error:
            where = place_of_error(error)
            raise self._error(
                index,
                f"reading it raised {type(error).__name__}: {error}"
                + (f" (at {where})" if where else ""),
                "read this item by itself and repair the data set",
            ) from error
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            count = f" of {len(item)}" if isinstance(item, (tuple, list)) else ""
            raise self._error(
                index,
                f"the item is a {type(item).__name__}{count}, not a pair (input, target)",
                "return (input, target) for each index",
            )
        return item[0], item[1]

    def _stacked(self, role: str, indices: Sequence[int], parts: Sequence[Any]) -> Tensor:
        import torch

        tensors = [self._tensor(role, i, part) for i, part in zip(indices, parts, strict=True)]
        first = tensors[0]
        for index, tensor in zip(indices, tensors, strict=True):
            if tensor.shape != first.shape or tensor.dtype != first.dtype:
                raise self._error(
                    index,
                    f"the {role} is {_form(tensor)}, that of item {indices[0]} is {_form(first)}",
                    "give all items one shape and type",
                )
        stacked = torch.stack(tensors)
        if stacked.is_floating_point() and not bool(torch.isfinite(stacked).all()):
            bad = next(n for n, t in enumerate(tensors) if not bool(torch.isfinite(t).all()))
            what = "NaN" if bool(torch.isnan(tensors[bad]).any()) else "infinity"
            raise self._error(indices[bad], f"the {role} holds {what}", "check where it is read")
        return stacked

    def _tensor(self, role: str, index: int, part: Any) -> Tensor:
        import torch

        try:
            tensor = torch.as_tensor(part)
        except (TypeError, ValueError, RuntimeError) as error:
            raise self._error(
                index,
                f"the {role} is a {type(part).__name__}, not a tensor or an array",
                "turn it into a torch.Tensor",
            ) from error
        expected = self.expected
        if role != "input" or expected is None:
            return tensor
        if tuple(tensor.shape) != expected.shape:
            raise self._error(
                index,
                f"the input has shape {tuple(tensor.shape)}, the network reads {expected.shape}",
                "give items the shape of the example inputs, without the batch",
            )
        if _dtype(tensor) != expected.dtype:
            raise self._error(
                index,
                f"the input is {_dtype(tensor)}, the network reads {expected.dtype}",
                f"convert it: x.to(torch.{expected.dtype})",
            )
        return tensor

    def _check_classes(
        self, indices: Sequence[int], targets: Tensor, answer: tuple[int, ...]
    ) -> None:
        """Check class indices as cross entropy takes them.

        Splits that are not trained on may hold other targets: their accuracy is not measured.
        """
        import torch

        if not answer:
            return
        classes, shape = answer[0], answer[1:]
        integers = not (targets.is_floating_point() or targets.is_complex())
        is_class = integers and targets.dtype != torch.bool
        if self.split == "train" and not is_class:
            raise self._error(
                indices[0],
                f"the target is {_dtype(targets)}, the default loss (cross entropy) takes integers",
                f"give class indices 0..{classes - 1}, or give data() a loss",
            )
        if tuple(targets.shape[1:]) != shape:
            if self.split == "train":
                raise self._error(
                    indices[0],
                    f"the target has shape {tuple(targets.shape[1:])}, the default loss (cross "
                    f"entropy) takes class indices of shape {shape}",
                    f"give class indices 0..{classes - 1}, or give data() a loss",
                )
            return
        wrong = ((targets < 0) | (targets >= classes)) & (targets != LEFT_OUT)
        if is_class and bool(wrong.any()):
            item = int(wrong.flatten(1).any(1).nonzero()[0]) if shape else int(wrong.nonzero()[0])
            value = int(targets[item][wrong[item]].flatten()[0])
            raise self._error(
                indices[item],
                f"the target is {value}, the network answers classes 0..{classes - 1}",
                "number the classes from 0, or give the network an output for each",
            )

    def _error(self, index: int, problem: str, remedy: str) -> FrontendError:
        return FrontendError(problem, place=f"{self.split} split, item {index}", remedy=remedy)


def refuse_two_tensors(split: str, source: Any) -> None:
    """Raise for a split that is a tuple (inputs, targets) of whole tensors or arrays.

    Raises:
        FrontendError: it is one.
    """
    if not isinstance(source, (tuple, list)) or len(source) != 2:
        return
    first, second = (getattr(part, "shape", None) for part in source)
    if first and second is not None and len(second) and first[0] == second[0]:
        raise FrontendError(
            f"the split is a {type(source).__name__} of two tensors, not a map-style dataset",
            place=f"{split} split",
            remedy="torch.utils.data.TensorDataset(X, Y)",
        )


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _form(tensor: Tensor) -> str:
    return f"{_dtype(tensor)} of shape {tuple(tensor.shape)}"
