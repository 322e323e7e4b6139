# SPDX-License-Identifier: Apache-2.0
"""Give every piece of work a resource, a start and an end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from enos_compiler.errors import UsageError
from enos_compiler.ir.network import Fact, Network
from enos_compiler.pipeline import Context, Pass
from enos_compiler.schedule.summary import schedule_with_baseline


@dataclass(frozen=True, slots=True)
class Schedule(Pass):
    """Turn an assigned network into a program: instructions per resource, and buffers.

    List scheduling, improved, then exact search as far as it reaches. The lower bound stands beside
    the makespan in the report, and the baseline is scheduled by the same rules.
    """

    name: ClassVar[str] = "schedule"
    requires: ClassVar[frozenset[Fact]] = frozenset({"assigned"})
    ensures: ClassVar[frozenset[Fact]] = frozenset({"scheduled"})

    frames: int = 1
    """Inputs that stream through, one behind the other; above 1 the report has their rate."""

    def run(self, network: Network, context: Context) -> Network:
        """Return the network with its program."""
        if self.frames < 1:
            raise UsageError(f"{self.frames} is below 1", place="schedule: frames")
        program, summary = schedule_with_baseline(network, context.target, self.frames)
        return replace(network, program=program).with_section(self.name, summary)
