# SPDX-License-Identifier: Apache-2.0
"""From a user's model to a compiled network: passes, ONNX, checks, report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from enos_compiler.errors import EnosError, FrontendError, UsageError, nearest
from enos_compiler.frontend.trace import trace
from enos_compiler.frontend.user import UserModel
from enos_compiler.ir.network import Network
from enos_compiler.ir.ops import SAMPLE_OPS
from enos_compiler.ir.program import Program
from enos_compiler.ir.serialize import save_network
from enos_compiler.options import Options
from enos_compiler.outputs import staged_outputs
from enos_compiler.pass_text import parse_passes
from enos_compiler.pipeline import Context, Pass, PassRecord, Pipeline, timed

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from onnx import ModelProto
    from torch import Tensor, nn

    from enos_compiler.cores.target import Target
    from enos_compiler.frontend.data import Data

_VERSIONED = ("enos-compiler", "torch", "onnx", "onnxruntime", "numpy", "scipy", "networkx")


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a caller wants to see of a running compilation."""

    say: Callable[[str], None] = lambda _: None
    log: Callable[[str], None] = lambda _: None
    """Told of what takes long, a line an epoch or a device; `say` of the rest."""
    progress: bool = False
    after_pass: Callable[[str, Network], None] = lambda _name, _network: None
    """Called with the name and the result of each pass."""
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
    """What tracing, each pass, the export and the checks took."""
    steps: Mapping[str, Network] = field(default_factory=dict)
    """The network after each pass, where `keep_steps` asked for it."""

    @property
    def program(self) -> Program:
        """The instructions per resource."""
        if self.network.program is None:
            raise EnosError("the pipeline did not schedule", remedy="end it with the schedule pass")
        return self.network.program

    def run(self, *inputs: Tensor | ArrayLike) -> tuple[np.ndarray[Any, Any], ...]:
        """Return the compiled network's outputs, real-valued, by replaying its program.

        Args:
            inputs: tensors or arrays, batch first, in the order of the example inputs.
        """
        from enos_compiler.schedule.executable import executable
        from enos_compiler.simulate.replay import replay

        return replay(executable(self.network), tuple(np.asarray(x) for x in inputs)).outputs

    def save(self, folder: str | Path) -> None:
        """Write the ONNX file, the program, the report and what is drawn from it into `folder`.

        Files of these names are replaced by rename, the report last; others stay.
        """
        from enos_compiler.export.onnx import save_onnx
        from enos_compiler.report.csv import write_csv
        from enos_compiler.report.netron import write_netron
        from enos_compiler.report.page import write_page
        from enos_compiler.report.trace import write_trace
        from enos_compiler.schedule.executable import executable
        from enos_compiler.schedule.program_file import write_program

        with staged_outputs(
            Path(folder), last="report.json", stale=("network", "model.onnx.data")
        ) as stage:
            save_onnx(self.onnx, stage / "model.onnx")
            write_program(executable(self.network), stage)
            write_csv(self.report, stage / "layers.csv")
            write_netron(self.report, self.onnx, stage / "model.netron.json")
            write_trace(self.report, self.program, stage / "trace.json")
            write_page(self.report, stage / "report.html")
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

    known = [f.name for f in fields(Options)]
    for unknown in sorted(set(options) - set(known)):
        raise UsageError(f"unknown option `{unknown}`", remedy=nearest(unknown, known))
    if isinstance(options.get("budget"), str):
        options["budget"] = Budget.parse(options["budget"])
    checked = Options(**options)
    _check_module(model, example_inputs)
    user = UserModel.from_module(model, example_inputs, data=data, name=name)
    return compile_model(user, checked.load_target(target), checked)


def _check_module(model: object, example_inputs: object) -> None:
    import torch

    if not isinstance(model, torch.nn.Module):
        raise FrontendError(
            f"model is a {type(model).__name__}, not a torch.nn.Module",
            remedy="compile(model, (tensor,))",
        )
    inputs = example_inputs if isinstance(example_inputs, (tuple, list)) else [example_inputs]
    for tensor in inputs:
        if not isinstance(tensor, torch.Tensor) or not isinstance(example_inputs, (tuple, list)):
            raise FrontendError(
                f"example_inputs is no tuple of tensors: it holds a {type(tensor).__name__}",
                remedy="compile(model, (tensor,)); torch.from_numpy turns an array into one",
            )


def compile_model(
    user: UserModel, target: Target, options: Options, hooks: Hooks | None = None
) -> Compiled:
    """Compile a loaded model: trace, passes, ONNX, checks, report."""
    from enos_compiler.device_accuracy import require_evaluable

    hooks = hooks or Hooks()
    data = user.data()
    steps = parse_passes(options.pipeline(can_train=data is not None and data.train is not None))
    _require_whole(steps)
    if options.evaluate:
        require_evaluable(user, target)
    taken: list[PassRecord] = []
    with timed(taken, "trace"):
        network = trace(user, batch=options.batch)
    network = replace(
        network,
        provenance={
            "versions": {package: version(package) for package in _VERSIONED},
            "seed": options.seed,
            "target": target.name,
            "spec_sha256": target.spec_sha256,
            **({"objective": options.objective} if options.objective else {}),
        },
    )
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
    taken.extend(records)
    onnx, report = _finish(network, kept, user, target, options, hooks, taken)
    steps_to_save = kept if hooks.keep_steps else {}
    return Compiled(network, target, report, onnx, tuple(taken), steps_to_save)


def _require_whole(steps: Sequence[Pass]) -> None:
    """Refuse a pipeline at whose end there is nothing to export or to report."""
    ensured = frozenset[str]().union(*(step.ensures for step in steps))
    lacking = [fact for fact in ("quantized", "scheduled") if fact not in ensured]
    if lacking:
        raise UsageError(
            f"the pipeline ends without {' and '.join(lacking)}: there would be nothing to write",
            place="--passes",
            remedy="end it with quantize,map-digital,map-cim,schedule; --print-after PASS shows "
            "the network on the way, enos-opt runs any part of a pipeline",
        )


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
        hooks.after_pass(step.name, result)
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
        log=hooks.log,
        progress=hooks.progress,
    )
    network = pipeline.run(network, context)
    return network, tuple(pipeline.records), kept


def _finish(
    network: Network,
    kept: Mapping[str, Network],
    user: UserModel,
    target: Target,
    options: Options,
    hooks: Hooks,
    taken: list[PassRecord],
) -> tuple[ModelProto, dict[str, Any]]:
    """Export the compiled network, check it, measure it and write its report."""
    from enos_compiler.checks import (
        check_compiled,
        converter_section,
        measure_accuracy,
        output_noise,
    )
    from enos_compiler.device_accuracy import SECTION as DEVICES
    from enos_compiler.device_accuracy import evaluate_on_devices
    from enos_compiler.evaluate.converters import without_converters
    from enos_compiler.export.onnx import export_onnx
    from enos_compiler.report.build import build_report

    report = build_report(
        network,
        target,
        accuracy=None,
        checks={"level": "none"},
        seed=options.seed,
        model_name=user.name,
    )
    hooks.say("export: model.onnx")
    plain = options.onnx_fidelity == "plain"
    exported = without_converters(network) if plain else network
    with timed(taken, "export"):
        onnx = export_onnx(
            exported,
            costs={
                row["name"]: (row["energy_pj"], row["latency_ns"])
                for row in (*report["layers"], *report["vector"], *report["host"])
            },
            totals={name: float(report["totals"][name]) for name in ("energy_pj", "latency_ns")},
            target=target.name,
        )
    hooks.say("check: ONNX Runtime and the replayed program against the integer reference")
    with timed(taken, "check"):
        report["checks"] = check_compiled(onnx, network, target, user, options, exported=exported)
        report["sections"] |= converter_section(network, user, options)
    hooks.say("accuracy: the float network and model.onnx")
    with timed(taken, "accuracy"):
        canonical = next(n for n in kept.values() if "shaped" in n.facts)
        report["accuracy"] = measure_accuracy(onnx, exported, canonical, user)
        draws = any(layer.op in SAMPLE_OPS for layer in network.layers.values())
        if report["accuracy"] is None and options.check != "none" and not draws:
            images = options.check_images if report["checks"]["level"] == "full" else 1
            noise = output_noise(network, canonical, images)
            sections = {"output-noise": noise} if noise else {}
            report["sections"] = {**report["sections"], **sections}
    if options.evaluate:
        hooks.log("evaluate: the compiled network on samples of the chip's crossbars")
        with timed(taken, "evaluate"):
            report["sections"] |= {
                DEVICES: evaluate_on_devices(
                    network, target, user, options, log=hooks.log, progress=hooks.progress
                )
            }
    return onnx, report
