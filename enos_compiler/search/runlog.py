# SPDX-License-Identifier: Apache-2.0
"""What a running search leaves behind: a line per epoch on the screen, in a file, and a picture.

`search.jsonl` holds one JSON object per epoch of the search; it is written anew from the history
each time, so that an interrupted run never leaves a line twice. `search.svg` shows how each layer's
probabilities moved.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from math import inf
from typing import TYPE_CHECKING

from enos_compiler.ir.units import energy_text, time_text
from enos_compiler.outputs import replace_text
from enos_compiler.search.plot import shares_svg

if TYPE_CHECKING:
    from enos_compiler.search.run import SearchSettings
    from enos_compiler.search.train import EpochRecord


class RunLog:
    """Tells how a phase goes.

    Args:
        settings: for the folder, the number of epochs and the listener.
        budget_pj: what the expected energy is held to; infinite for none.
    """

    def __init__(self, settings: SearchSettings, budget_pj: float) -> None:
        self.settings = settings
        self.budget_pj = budget_pj
        self._started = time.monotonic()
        self._seen = 0

    def epoch(self, phase: str, record: EpochRecord, history: Sequence[EpochRecord]) -> None:
        """Report one epoch: loss, accuracy, expected energy, entropy of the choices, time left."""
        self._seen += 1
        parts = [f"{phase} epoch {record.epoch}: loss {record.loss:.3f}"]
        if record.validation_accuracy is not None:
            parts.append(f"validation accuracy {record.validation_accuracy:.1%}")
        energy_pj = record.figures.get("expected_energy_pj")
        if energy_pj is not None:
            text = f"expected energy {energy_text(energy_pj)}"
            if self.budget_pj != inf:
                text += f" (budget {energy_text(self.budget_pj, like=energy_pj)})"
            parts += [text, f"entropy {record.figures['entropy']:.2f}"]
            left = self.settings.epochs - record.epoch
            if left:
                spent_s = (time.monotonic() - self._started) / self._seen
                parts.append(f"{time_text(left * spent_s * 1e9)} left")
            self._write(history)
        self.settings.say(", ".join(parts))

    def finish(self, history: Sequence[EpochRecord]) -> None:
        """Write log and picture of a finished search."""
        self._write(history)

    def _write(self, history: Sequence[EpochRecord]) -> None:
        folder = self.settings.folder
        if folder is None or not history:
            return
        folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(asdict(record)) + "\n" for record in history)
        picture = shares_svg([record.shares for record in history])
        for name, text in (("search.jsonl", lines), ("search.svg", picture)):
            replace_text(folder / name, text)
