# SPDX-License-Identifier: Apache-2.0
"""Runs passes: order, checks, timing, dumps."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from enos_compiler.errors import EnosError, PassError
from enos_compiler.ir.facts import drop_after, missing
from enos_compiler.ir.network import Fact, Layer, Network
from enos_compiler.ir.verify import verify
from enos_compiler.pass_text import format_pass

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target
    from enos_compiler.frontend.user import UserModel


@dataclass(frozen=True, slots=True)
class Context:
    """What a pass may use besides the network."""

    target: Target
    user: UserModel | None = None
    """The user's model file: gives data and loss; None for a saved network."""
    seed: int = 0
    allow_float: bool = False
    """Keep operations without an integer form as float islands on the host."""
    first_last_free: bool = False
    """Let first and last layers leave mac with 8-bit weights on the baseline core."""
    work_folder: Path | None = None
    """Where checkpoints and logs of a running search live."""
    say: Callable[[str], None] = lambda _: None
    """Progress in words, for a person who looks on."""
    log: Callable[[str], None] = lambda _: None
    """Progress of what takes long, a line an epoch: for a log file as well."""
    progress: bool = False
    """Whether stderr is a terminal that may show a bar."""

    def track(self, layers: Mapping[str, Layer], doing: str) -> Iterable[Layer]:
        """Yield layers; on a terminal with a bar, which goes when the last one is done."""
        if not self.progress:
            return layers.values()
        from tqdm import tqdm

        bar: Iterable[Layer] = tqdm(
            layers.values(), desc=doing, unit="layer", leave=False, file=sys.stderr
        )
        return bar


@dataclass(frozen=True, slots=True)
class Pass(ABC):
    """Base of every pass: a frozen dataclass whose fields are its options.

    The docstring's first line is its help text; a docstring under a field documents the option.
    `run` returns a changed copy and never alters what it was given.
    """

    name: ClassVar[str]
    requires: ClassVar[frozenset[Fact]] = frozenset()
    ensures: ClassVar[frozenset[Fact]] = frozenset()

    @abstractmethod
    def run(self, network: Network, context: Context) -> Network:
        """Return the network with this pass's annotation added."""


@dataclass(frozen=True, slots=True)
class PassRecord:
    """What one pass, or another step of a compilation, took: its text form and its wall time."""

    text: str
    seconds: float


@contextmanager
def timed(records: list[PassRecord], text: str) -> Iterator[None]:
    """Add a record of what the body takes."""
    started = time.perf_counter()
    yield
    records.append(PassRecord(text, time.perf_counter() - started))


@dataclass(slots=True)
class Pipeline:
    """A list of passes and what to do around each.

    Args:
        passes: in order of execution.
        after: called with (pass, network) when a pass has finished: printing, dumping.
    """

    passes: Sequence[Pass]
    after: Callable[[Pass, Network], None] = lambda _pass, _network: None
    records: list[PassRecord] = field(default_factory=list)

    def run(self, network: Network, context: Context) -> Network:
        """Run every pass; verify the result of each.

        Raises:
            PassError: a required fact is missing or a pass failed unexpectedly.
            VerifyError: a pass returned a network that breaks a rule.
        """
        queue = list(self.passes)
        while queue:
            step = queue.pop(0)
            lacking = missing(network, step.requires)
            if lacking == ("calibrated",):
                calibrate = self._calibration()
                context.say(f"{step.name} needs ranges: calibrate runs first")
                queue[:0] = [calibrate, step]
                continue
            if lacking:
                raise PassError(
                    f"requires {', '.join(lacking)}, which no earlier pass has ensured",
                    place=f"pass {step.name}",
                    remedy=f"run {' and '.join(sorted(_ensurers(lacking)))} before it",
                )
            network = self._run_one(step, network, context)
        return network

    def _run_one(self, step: Pass, network: Network, context: Context) -> Network:
        started = time.perf_counter()
        done = [r.text for r in self.records]
        try:
            network = step.run(network, context)
        except EnosError:
            raise
        except Exception as error:
            ran = ", ".join(done) or "none"
            raise PassError(
                f"{type(error).__name__}: {error} (passes before it: {ran})",
                place=f"pass {step.name}",
                remedy="this is a defect; run with -v for the trace and report it",
            ) from error
        network = drop_after(network, step.ensures)
        text = format_pass(step)
        provenance: dict[str, Any] = {**network.provenance}
        provenance["passes"] = [*provenance.get("passes", []), text]
        network = replace(network, facts=network.facts | step.ensures, provenance=provenance)
        verify(network, step.name)
        self.records.append(PassRecord(text, time.perf_counter() - started))
        self.after(step, network)
        return network

    @staticmethod
    def _calibration() -> Pass:
        from enos_compiler import plugins

        calibrate: Pass = plugins.load("passes", "calibrate")()
        return calibrate


def _ensurers(facts: Sequence[Fact]) -> set[str]:
    """Return the registered passes that ensure any of the facts."""
    from enos_compiler import plugins

    return {
        name
        for name in plugins.names("passes")
        if set(facts) & set(plugins.load("passes", name).ensures)
    } or {"a pass that ensures it"}
