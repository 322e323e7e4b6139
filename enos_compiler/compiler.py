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
    checked = Options(**options)
    user = UserModel.from_module(model, example_inputs, data=data, name=name)
    return compile_model(user, load_target(target, inferences=checked.inferences), checked)


def compile_model(
    user: UserModel, target: Target, options: Options, hooks: Hooks | None = None
) -> Compiled:
    """Compile a loaded model: trace, passes, ONNX, checks, report."""
    hooks = hooks or Hooks()
    data = user.data()
    steps = parse_passes(options.pipeline(can_train=data is not None and data.train is not None))
    network = trace(user, batch=options.batch)
    network = replace(
        network,
        provenance={
            "versions": {package: version(package) for package in _VERSIONED},
            "seed": options.seed,
            "target": target.name,
            "spec_sha256": target.spec_sha256,
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
    onnx, report = _finish(network, kept, user, target, options, hooks)
    steps_to_save = kept if hooks.keep_steps else {}
    return Compiled(network, target, report, onnx, records, steps_to_save)


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
) -> tuple[ModelProto, dict[str, Any]]:
    """Export the compiled network, check it, measure it and write its report."""
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
    onnx = export_onnx(
        network,
        costs={row["name"]: (row["energy_pj"], row["latency_ns"]) for row in report["layers"]},
        totals={name: float(report["totals"][name]) for name in ("energy_pj", "latency_ns")},
        target=target.name,
    )
    report["checks"] = _check(onnx, network, user, options, hooks)
    canonical = next(n for n in kept.values() if "shaped" in n.facts)
    report["accuracy"] = _accuracy(onnx, network, canonical, user, hooks)
    return onnx, report


def _check(
    onnx: ModelProto, network: Network, user: UserModel, options: Options, hooks: Hooks
) -> dict[str, Any]:
    """Compare ONNX Runtime, optimisations off and on, with the integer reference.

    Raises:
        EnosError: an output differs although no float island is in the way.
    """
    from enos_compiler.export.check import compare
    from enos_compiler.report.build import complete_checks

    small = network.macs <= FULL_CHECK_MACS
    level = options.check or ("full" if small else "sampled")
    if level == "none":
        return complete_checks({"level": level})
    inputs = _check_inputs(network, user, options.check_images if level == "full" else 1)
    hooks.say(f"check: ONNX Runtime against the reference on {len(inputs[0])} inputs")
    steps = compare(onnx, network, inputs).max_steps
    islands = [vector.name for vector in network.vectors.values() if vector.is_float]
    if steps > 0 and not islands:
        raise EnosError(
            f"ONNX Runtime differs from the integer reference by {steps} output steps",
            place="check of model.onnx",
            remedy="this is a defect: report it with the model; --check none skips the check",
        )
    return complete_checks({"level": level, "onnx_max_steps": steps})


def _check_inputs(
    network: Network, user: UserModel, images: int
) -> tuple[np.ndarray[Any, Any], ...]:
    """Return real inputs: from the test set where there is one, else the example inputs."""
    data = user.data()
    if data is not None and data.test is not None and len(network.inputs) == 1:
        batch = next(data.batches("test", batch_size=images, limit=images))[0]
        return _whole_batches((batch.numpy(),), network)
    return _whole_batches(tuple(t[:images].numpy() for t in user.example_inputs()), network)


def _whole_batches(
    inputs: tuple[np.ndarray[Any, Any], ...], network: Network
) -> tuple[np.ndarray[Any, Any], ...]:
    """Cut inputs to whole batches where the batch is fixed."""
    if network.batch_is_symbolic:
        return inputs
    whole = len(inputs[0]) // network.batch * network.batch
    return tuple(array[:whole] for array in inputs) if whole else inputs


def _accuracy(
    onnx: ModelProto, network: Network, canonical: Network, user: UserModel, hooks: Hooks
) -> dict[str, Any] | None:
    """Return accuracies on the whole test set: of the float network and of the ONNX file.

    The float network is the user's, or the one that the search trained from an untrained network.
    """
    data = user.data()
    if data is None or data.test is None or len(network.inputs) != 1:
        return None
    import torch

    from enos_compiler.export.check import OnnxSession
    from enos_compiler.search.evaluate import evaluate, module_predictor

    hooks.say("accuracy: the float network and model.onnx on the test set")
    batch = None if network.batch_is_symbolic else network.batch
    trained = network.sections.get("search", {}).get("float", {}).get("test_accuracy")
    reference = trained
    if trained is None:
        measured = evaluate(module_predictor(canonical.graph), data, batch=batch)
        reference = measured.fraction if measured else None
    session = OnnxSession(onnx, "on")

    def predict(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run((images.numpy(),))[0])

    compiled = evaluate(predict, data, batch=batch)
    if reference is None or compiled is None:
        return None
    return {"reference": reference, "compiled": compiled.fraction, "images": compiled.answers}
