# SPDX-License-Identifier: Apache-2.0
"""From a user's model to a compiled network: passes, ONNX, checks, report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enos_compiler.errors import EnosError
from enos_compiler.frontend.trace import trace
from enos_compiler.frontend.user import UserModel
from enos_compiler.ir.network import Network
from enos_compiler.ir.printer import format_network
from enos_compiler.ir.program import Program
from enos_compiler.ir.serialize import save_network
from enos_compiler.options import FULL_CHECK_MACS, Options
from enos_compiler.outputs import staged_outputs
from enos_compiler.pass_text import parse_passes
from enos_compiler.pipeline import Context, Pass, PassRecord, Pipeline

if TYPE_CHECKING:
    import numpy as np
    from onnx import ModelProto
    from torch import Tensor, nn

    from enos_compiler.cores.target import Target
    from enos_compiler.frontend.data import Data

_VERSIONED = ("enos-compiler", "torch", "onnx", "onnxruntime", "numpy", "scipy", "networkx")


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a caller wants to see of a running compilation."""

    say: Callable[[str], None] = lambda _: None
    progress: bool = False
    print_after: str | None = None
    """Name of the pass after which the network is printed on stdout, or `all`."""
    keep_steps: bool = False
    """Keep the network after each pass, for `Compiled.save` to write."""
    work_folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled network and everything that is said of it."""

    network: Network
    target: Target
    report: Mapping[str, Any]
    onnx: ModelProto
    records: tuple[PassRecord, ...] = ()
    steps: Mapping[str, Network] = field(default_factory=dict)
    """The network after each pass, where `keep_steps` asked for it."""

    @property
    def program(self) -> Program:
        """The instructions per resource."""
        if self.network.program is None:
            raise EnosError("the pipeline did not schedule", remedy="end it with the schedule pass")
        return self.network.program

    def run(self, *inputs: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], ...]:
        """Return the compiled network's outputs, real-valued, by the integer reference."""
        from enos_compiler.semantics.reference import run

        return run(self.network, inputs)

    def save(self, folder: str | Path) -> None:
        """Write model.onnx, program.json, report.json and layers.csv into `folder`.

        Files of these names are replaced by rename, the report last; others stay.
        """
        from enos_compiler.export.onnx import save_onnx
        from enos_compiler.report.csv import write_csv
        from enos_compiler.schedule.program_file import write_program

        with staged_outputs(Path(folder), last="report.json") as stage:
            save_onnx(self.onnx, stage / "model.onnx")
            write_program(self.network, stage)
            write_csv(self.report, stage / "layers.csv")
            for name, network in self.steps.items():
                step = stage / "network" / name
                step.mkdir(parents=True)
                save_network(network, step)
            (stage / "report.json").write_text(json.dumps(self.report, indent=1) + "\n")


def compile(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    target: str = "hybrid",
    data: Data | None = None,
    *,
    name: str | None = None,
    **options: Any,
) -> Compiled:
    """Compile a PyTorch network for a target.

    Args:
        model: the network; it is traced in evaluation mode.
        example_inputs: fix the shapes and calibrate the ranges.
        target: a chip's name or the path of its YAML file.
        data: train, validation and test sets; enables the training search and accuracy.
        name: of the network in the report; by default its class name.
        options: fields of `Options`, e.g. `budget="floor+0.5"`, `search="sensitivity"`.
    """
    from enos_compiler.assign.budget import Budget
    from enos_compiler.cores.target import load_target

    if isinstance(options.get("budget"), str):
        options["budget"] = Budget.parse(options["budget"])
    user = UserModel.from_module(model, example_inputs, data=data, name=name)
    return compile_model(user, load_target(target), Options(**options))


def compile_model(
    user: UserModel, target: Target, options: Options, hooks: Hooks | None = None
) -> Compiled:
    """Compile a loaded model: trace, passes, ONNX, checks, report."""
    hooks = hooks or Hooks()
    if options.inferences:
        target = target.with_inferences(options.inferences)
    data = user.data()
    steps = parse_passes(options.pipeline(can_train=data is not None and data.train is not None))
    network = trace(user, batch=options.batch)
    network = replace(
        network,
        provenance={
            "versions": {package: version(package) for package in _VERSIONED},
            "seed": options.seed,
            "target": target.name,
            "target_file": str(target.file),
            "spec_sha256": target.spec_sha256,
        },
    )
    traced = network
    network, records, kept = run_passes(
        network,
        steps,
        target,
        hooks,
        user=user,
        seed=options.seed,
        allow_float=options.allow_float,
        first_last_free=options.first_last_free,
    )
    onnx, report = _finish(traced, network, user, target, options, hooks)
    return Compiled(network, target, report, onnx, records, kept)


def run_passes(
    network: Network,
    steps: Sequence[Pass],
    target: Target,
    hooks: Hooks,
    *,
    user: UserModel | None = None,
    seed: int = 0,
    allow_float: bool = False,
    first_last_free: bool = False,
) -> tuple[Network, tuple[PassRecord, ...], dict[str, Network]]:
    """Run passes; return the network, what each took, and the kept steps."""
    kept: dict[str, Network] = {}

    def after(step: Pass, result: Network) -> None:
        if hooks.print_after in (step.name, "all"):
            print(format_network(result), end="")
        if hooks.keep_steps:
            kept[f"{len(kept) + 1:02}-{step.name}"] = result

    pipeline = Pipeline(steps, after=after)
    context = Context(
        target=target,
        user=user,
        seed=seed,
        allow_float=allow_float,
        first_last_free=first_last_free,
        work_folder=hooks.work_folder,
        say=hooks.say,
        progress=hooks.progress,
    )
    network = pipeline.run(network, context)
    return network, tuple(pipeline.records), kept


def _finish(
    reference: Network,
    network: Network,
    user: UserModel,
    target: Target,
    options: Options,
    hooks: Hooks,
) -> tuple[ModelProto, dict[str, Any]]:
    """Export the compiled network, check it, measure it and write its report."""
    from enos_compiler.export.onnx import export_onnx
    from enos_compiler.report.build import build_report

    report = build_report(
        network,
        target,
        model_name=user.name,
        seed=options.seed,
        accuracy=None,
        checks={"level": "none", "onnx_max_steps": None},
    )
    hooks.say("export: model.onnx")
    onnx = export_onnx(network, report)
    report["checks"] = _check(onnx, network, user, options, hooks)
    report["accuracy"] = _accuracy(onnx, reference, user, hooks)
    return onnx, report
