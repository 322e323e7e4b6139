# SPDX-License-Identifier: Apache-2.0
"""The user's data: three splits, opened only when something reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from enos_compiler.errors import FrontendError, nearest
from enos_compiler.frontend.samples import Checker, Expected, refuse_two_tensors
from enos_compiler.ir.network import Network

if TYPE_CHECKING:
    from torch import Tensor

SplitName = Literal["train", "validation", "test"]
Split = Any
"""A map-style dataset of (input, target) or a callable without arguments that returns one."""


@dataclass(slots=True)
class Data:
    """Train, validation and test sets, how a batch is scored, and the batch size.

    A split is a map-style dataset whose items are (input, target), or a callable without arguments
    that returns one; a callable is called at the first use of its split and never before.
    """

    train: Split = None
    validation: Split = None
    test: Split = None
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    """(output, target) to a scalar; None stands for cross entropy."""
    batch_size: int = 64
    _opened: dict[str, Any] = field(default_factory=dict, repr=False)
    _expected: Expected | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse a batch size or a loss that cannot be."""
        if not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise FrontendError(
                f"batch_size is {self.batch_size!r}", place="data()", remedy="batch_size=64"
            )
        if self.loss is not None and not callable(self.loss):
            raise FrontendError(
                f"the loss is a {type(self.loss).__name__}, not a function",
                place="data()",
                remedy="give a function (output, target) -> scalar, or none for cross entropy",
            )

    def for_network(self, network: Network) -> Data:
        """Return the same splits; what is read is held against what the network takes."""
        return replace(self, _expected=Expected.of(network))

    def dataset(self, split: SplitName) -> Any | None:
        """Return the dataset of a split, opened at its first use; None where the user gave none.

        Raises:
            FrontendError: opening it fails, or what comes back is no map-style dataset.
        """
        if split not in self._opened:
            source = getattr(self, split)
            if source is None:
                return None
            if not hasattr(source, "__getitem__") and callable(source):
                source = _open(source, split)
            refuse_two_tensors(split, source)
            if not (hasattr(source, "__getitem__") and hasattr(source, "__len__")):
                raise FrontendError(
                    f"the {split} split is a {type(source).__name__}, not a map-style dataset",
                    remedy="give an object with __len__ and __getitem__, or a callable for one",
                )
            if not len(source):
                raise FrontendError(f"the {split} split is empty", remedy="check where it is read")
            self._opened[split] = source
        return self._opened[split]

    def batches(
        self,
        split: SplitName,
        *,
        batch_size: int | None = None,
        limit: int | None = None,
        indices: Sequence[int] | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (inputs, targets) stacked along a new leading axis, in order.

        Args:
            split: which split.
            batch_size: items per batch; None stands for `self.batch_size`.
            limit: stop after so many items.
            indices: which items and in which order; None stands for all.

        Raises:
            FrontendError: an item is not what the network and the loss take; names it.
        """
        dataset = self.dataset(split)
        if dataset is None:
            return
        checker = Checker(split, dataset, self._expected, default_loss=self.loss is None)
        chosen = list(range(len(dataset)) if indices is None else indices)[:limit]
        size = batch_size or self.batch_size
        for start in range(0, len(chosen), size):
            yield checker.batch(chosen[start : start + size])


def _open(source: Callable[[], Any], split: str) -> Any:
    """Call a split's callable; name the user's line where it fails."""
    from enos_compiler.frontend.place import place_of_error

    try:
        return source()
    except FrontendError:
        raise
    except Exception as error:
        raise FrontendError(
            f"reading the {split} split failed: {type(error).__name__}: {error}",
            place=place_of_error(error),
            remedy="run the data function by itself and repair it",
        ) from error


def as_data(result: Any, place: str) -> Data:
    """Return what a user's `data` function gave as a Data.

    Raises:
        FrontendError: it is neither a Data nor a mapping with a Data's fields.
    """
    if isinstance(result, Data):
        return result
    if not isinstance(result, Mapping):
        raise FrontendError(
            f"data() returned a {type(result).__name__}",
            place=place,
            remedy="return enos_compiler.frontend.data.Data or a dict with its fields",
        )
    known = [f.name for f in fields(Data) if not f.name.startswith("_")]
    for name in result:
        if name not in known:
            raise FrontendError(
                f"data() returned the unknown key `{name}`",
                place=place,
                remedy=nearest(name, known),
            )
    return Data(**result)
