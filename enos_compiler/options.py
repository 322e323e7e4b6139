# SPDX-License-Identifier: Apache-2.0
"""What a compilation may be asked for, checked before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args
from urllib.parse import quote

from enos_compiler.assign.budget import Budget
from enos_compiler.errors import UsageError, nearest
from enos_compiler.ir.kernels import check_extents
from enos_compiler.mapping.objective import OBJECTIVES, Objective

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target

Search = Literal["single", "bilevel", "sequential", "variational", "sensitivity", "none"]
Check = Literal["full", "sampled", "none"]
Fidelity = Literal["hardware", "plain"]
SEARCHES: tuple[str, ...] = get_args(Search)
TRAINING: tuple[str, ...] = SEARCHES[:4]
"""Searches that train the network."""
CHECKS: tuple[str, ...] = get_args(Check)
FIDELITIES: tuple[str, ...] = get_args(Fidelity)

FULL_CHECK_MACS = 200_000_000
"""Largest network that the default check covers in full."""

_TRAINING_FREE_BITS = (8, 6, 4)
_BEFORE_SCHEDULE = ("quantize", "map-digital", "map-cim")
_SEARCH_BITS = (8,)
"""Operators are the choice; every width more multiplies the branches that are trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of one compilation; each is a keyword of `compile` and an option of `enosc`."""

    search: Search | None = None
    """How choices are scored; by default `single` with data to train on, else `sensitivity`."""
    budget: Budget | None = None
    """Energy that the assignment may use; by default floor+0.5, halfway to all-MAC."""
    operators: tuple[str, ...] = ()
    """Operators to offer; by default all of the target's."""
    weight_bits: tuple[int, ...] = ()
    """Weight widths to offer."""
    activation_bits: tuple[int, ...] = ()
    """Activation widths to offer."""
    kernels: tuple[int, ...] = ()
    """Kernel extents to offer beside a convolution's own; odd."""
    point: tuple[str, int] | None = None
    """File and number of a point of a front whose bits are taken; excludes search, budget, bits and
    operators."""
    passes: str | None = None
    """The whole pipeline as text; excludes search, budget, bits and operators."""
    epochs: int | None = None
    """Epochs of the search."""
    front: int = 0
    """Budgets between the floor and all-MAC whose networks a training search measures."""
    finetune: int | None = None
    """Epochs of fine-tuning; by default after a search that trains, else none."""
    batch: int = 1
    """Batch that the network is compiled and priced for."""
    frames: int = 1
    """Inputs that stream through, one behind the other; above 1 the report has their rate."""
    inferences: int | None = None
    """Inferences per programming of resident weights; by default the target's."""
    objective: Objective | None = None
    """What mappings minimise; by default what the target's file says."""
    mapping_cache: str | Path | None = None
    """Folder of mappings found before; by default the user's cache."""
    seed: int = 0
    allow_float: bool = False
    """Keep operations without an integer form as float islands on the host."""
    first_last_free: bool = False
    """Let first and last layers leave mac with 8-bit weights on the baseline core."""
    onnx_fidelity: Fidelity = "hardware"
    """Whether model.onnx holds what crossbars' converters do, or the operators' own integers."""
    check: Check | None = None
    """How much of the result is compared with the reference; by default by size."""
    check_images: int = 64
    """Most inputs that the reference is run on."""
    evaluate: bool = False
    """Measure accuracy on samples of the chip's crossbars, with what is wrong with them."""
    devices: int = 10
    """Samples of the chip that are drawn."""
    evaluate_images: int = 1000
    """Most test inputs that each sample answers; 0 for all."""
    model_args: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse values out of range and options that exclude each other."""
        _one_of("--search", self.search, SEARCHES)
        _one_of("--check", self.check, CHECKS)
        _one_of("--onnx-fidelity", self.onnx_fidelity, FIDELITIES)
        _one_of("--objective", self.objective, OBJECTIVES)
        for name, value, least in (
            ("--batch", self.batch, 1),
            ("--frames", self.frames, 1),
            ("--inferences", self.inferences, 1),
            ("--epochs", self.epochs, 1),
            ("--finetune", self.finetune, 0),
            ("--front", self.front, 0),
            ("--check-images", self.check_images, 1),
            ("--devices", self.devices, 2),
            ("--evaluate-images", self.evaluate_images, 0),
            ("--seed", self.seed, 0),
        ):
            if value is not None and value < least:
                raise UsageError(f"{value} is below {least}", place=name)
        for width in (*self.weight_bits, *self.activation_bits):
            if not 2 <= width <= 8:
                raise UsageError(f"{width} bits is outside 2..8", place="--bits", remedy="8|4")
        check_extents(self.kernels)
        given = {
            "--search": self.search,
            "--budget": self.budget,
            "--bits": self.weight_bits or self.activation_bits,
            "--operators": self.operators,
            "--kernels": self.kernels,
            "--epochs": self.epochs,
            "--finetune": self.finetune,
            "--front": self.front,
        }
        schedule = ["--frames"] if self.frames > 1 else []
        clash = [*(n for n, value in given.items() if value), *schedule] if self.passes else []
        if clash:
            raise UsageError(
                f"--passes excludes {', '.join(clash)}",
                remedy="give these as options of the passes, e.g. assign{budget=0.6}",
            )
        clash = [name for name, value in given.items() if value and name != "--finetune"]
        clash += ["--passes"] if self.passes else []
        if self.point and clash:
            raise UsageError(
                f"--bits {self.point[0]}#{self.point[1]} is a finished choice and excludes "
                + ", ".join(clash),
                remedy="leave these out",
            )

    def load_target(self, name_or_path: str | Path) -> Target:
        """Return the target with what these options override of its file."""
        from enos_compiler.cores.target import load_target

        return load_target(
            name_or_path,
            inferences=self.inferences,
            objective=self.objective,
            mapping_cache=self.mapping_cache,
        )

    def pipeline(self, *, can_train: bool) -> str:
        """Return the pipeline as text.

        Args:
            can_train: whether the user's file gives data to train on.

        Raises:
            UsageError: training was asked for and cannot be: there are no data, or the search that
                the epochs are for does not train.
        """
        if self.passes:
            return self.passes
        if self.point:
            return self._chosen_point(can_train=can_train)
        search = self.search or ("single" if can_train else "sensitivity")
        if not can_train:
            self._refuse_training(search)
        for name, value in (("--epochs", self.epochs), ("--front", self.front)):
            if value and search not in TRAINING:
                raise UsageError(
                    f"{name} {value} is for a search that trains, --search {search} does not",
                    remedy=f"--search single, or leave {name} out",
                )
        steps = ["canonicalize", "calibrate", self._attach_choices(search)]
        if search in TRAINING:
            steps.append(self._search(search))
        else:
            steps.append("sensitivity")
        steps.append(self._assign(search))
        if search in TRAINING and self.finetune is None:
            steps.append("finetune")
        elif self.finetune:
            steps.append(f"finetune{{epochs={self.finetune}}}")
        return ",".join([*steps, *_BEFORE_SCHEDULE, self._schedule()])

    def _chosen_point(self, *, can_train: bool) -> str:
        """Return the pipeline of a point's bits, fine-tuned as long as its accuracy was."""
        from enos_compiler.explore.front import read_point

        file, number = self.point or ("", 0)
        chosen = read_point(Path(file), number).point
        epochs = chosen.epochs if self.finetune is None else self.finetune
        if epochs and not can_train:
            self._refuse_training("none")
            raise UsageError(
                f"point {number} was fine-tuned for {epochs} epochs, and there are no data",
                place="--bits",
                remedy="--finetune 0, or give the model file a data() function",
            )
        steps = ["canonicalize", "calibrate", f"assign-bits{{file={quote(file)} point={number}}}"]
        if epochs:
            steps.append(f"finetune{{epochs={epochs}}}")
        return ",".join([*steps, *_BEFORE_SCHEDULE, self._schedule()])

    def _refuse_training(self, search: str) -> None:
        """Raise for what cannot be had without data."""
        for text, wanted, way_out in (
            (f"--search {search}", search in TRAINING, "--search sensitivity"),
            (f"--epochs {self.epochs}", self.epochs, "leave --epochs out"),
            (f"--finetune {self.finetune}", self.finetune, "leave --finetune out"),
        ):
            if wanted:
                raise UsageError(
                    f"{text} trains, but the model file has no data()",
                    remedy=f"{way_out}, or give the file a data() function",
                )

    def _attach_choices(self, search: str) -> str:
        if search == "none":
            return "attach-choices{operators=mac weight_bits=8 activation_bits=8}"
        default = _SEARCH_BITS if search in TRAINING else _TRAINING_FREE_BITS
        options = []
        operators = self.operators or (("mac",) if search == "sensitivity" else ())
        if operators:
            options.append(f"operators={'|'.join(operators)}")
        for name, bits in (
            ("weight_bits", self.weight_bits or default),
            ("activation_bits", self.activation_bits or default),
        ):
            options.append(f"{name}={'|'.join(map(str, bits))}")
        if self.kernels:
            options.append(f"kernels={'|'.join(map(str, self.kernels))}")
        return f"attach-choices{{{' '.join(options)}}}"

    def _schedule(self) -> str:
        return f"schedule{{frames={self.frames}}}" if self.frames > 1 else "schedule"

    def _search(self, method: str) -> str:
        options = [] if method == "single" else [f"method={method}"]
        if self.epochs:
            options.append(f"epochs={self.epochs}")
        if self.budget:
            options.append(f"budget={self.budget}")
        if self.front:
            options.append(f"front={self.front}")
        return f"search{{{' '.join(options)}}}" if options else "search"

    def _assign(self, search: str) -> str:
        if search == "none":
            return "assign{budget=baseline}"
        return f"assign{{budget={self.budget}}}" if self.budget else "assign"


def _one_of(name: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise UsageError(f"`{value}` is not known", place=name, remedy=nearest(value, known))
