# SPDX-License-Identifier: Apache-2.0
"""Find the range of every value on real inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from enos_compiler.errors import UsageError
from enos_compiler.ir.network import Fact, Network
from enos_compiler.pipeline import Context, Pass


@dataclass(frozen=True, slots=True)
class Calibrate(Pass):
    """Run the network on the example inputs, or on training images, and keep each value's range.

    Raises:
        FrontendError: a value becomes NaN or infinite; names it.
    """

    name: ClassVar[str] = "calibrate"
    requires: ClassVar[frozenset[Fact]] = frozenset({"shaped"})
    ensures: ClassVar[frozenset[Fact]] = frozenset({"calibrated"})

    images: int = 0
    """Training images to run on where the user gives data; 0: the example inputs."""

    def run(self, network: Network, context: Context) -> Network:
        """Return the network with ranges."""
        from enos_compiler.frontend import calibrate as core

        if self.images < 0:
            raise UsageError(f"calibrate{{images={self.images}}} is negative", remedy="images=0")
        data = context.user.data() if context.user is not None and self.images else None
        dataset = data.dataset("train") if data is not None else None
        if data is not None and dataset is not None and len(network.inputs) == 1:
            batches = core.image_batches(data.for_network(network), self.images)
            source, count = "training images", min(self.images, len(dataset))
        else:
            batches = core.example_batches(network)
            source, count = "example inputs", int(network.example_inputs[0].shape[0])
        calibrated = core.calibrate(network, batches)
        return calibrated.with_section(self.name, {"source": source, "images": count})
