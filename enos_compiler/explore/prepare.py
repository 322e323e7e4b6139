# SPDX-License-Identifier: Apache-2.0
"""From a user's file to what is searched: the calibrated network, its weights, the journal."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from enos_compiler.assign.budget import Budget
from enos_compiler.errors import FrontendError
from enos_compiler.explore.accuracy import LEARNING_RATE, Recipe
from enos_compiler.explore.gradient import GradientSearch, gradient_front
from enos_compiler.explore.journal import Journal, open_journal
from enos_compiler.explore.objectives import MethodName
from enos_compiler.explore.plan import Genome
from enos_compiler.explore.point import load_same
from enos_compiler.explore.run import Exploration, Scope
from enos_compiler.frontend.trace import trace
from enos_compiler.frontend.user import load_user_model
from enos_compiler.ir.network import Network
from enos_compiler.ir.serialize import save_network
from enos_compiler.outputs import check_writable, staged_outputs
from enos_compiler.pass_text import parse_passes
from enos_compiler.pipeline import Context, Pipeline
from enos_compiler.search.checkpoint import fingerprint
from enos_compiler.search.run import SearchSettings, train_float

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target
    from enos_compiler.frontend.data import Data
    from enos_compiler.frontend.user import UserModel

NETWORK = "network"
"""Folder of the network that accuracies are measured of, beside the front."""
JOURNAL = "journal.jsonl"
GRADIENT_POINTS = 8
"""Budgets that the gradient search's scores are assigned at."""
FLOAT_EPOCHS = 8
"""Of a network that has learnt nothing, as long as the search of `enosc` trains it by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Scope):
    """What the user asks for: a scope, and how its network comes about."""

    model: str
    model_args: Mapping[str, str]
    folder: Path | None
    target: str
    method: MethodName
    search_epochs: int
    """Of the gradient search."""
    float_epochs: int | None
    images: int | None
    resume: bool


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a search starts from and where its results go."""

    options: Exploration
    journal: Journal
    folder: Path
    model: str
    """The network's name."""


def prepare(request: Request, say: Callable[[str], None]) -> Prepared:
    """Trace, calibrate and, where it has learnt nothing, train the network; open the journal.

    Raises:
        FrontendError: accuracy is asked for, and the file gives no data.
        FormatError: the journal is of another run.
    """
    user = load_user_model(request.model, request.model_args, seed=request.seed)
    folder = request.folder or Path("build") / f"{user.name}-{request.target}-front"
    check_writable(folder)
    target = request.chips[0].build()
    network = calibrated(user, target, request.seed, say)
    recipe, journal = None, Journal()
    if "accuracy" in request.objectives:
        data = user.data()
        if data is None or data.validation is None or data.train is None:
            raise FrontendError(
                "accuracy is an objective, and the model file gives no data() with a train and a "
                "validation split",
                place=request.model,
                remedy="--objectives noise,edp, which needs none, or give the file a data()",
            )
        network = _with_weights(network, data, request, folder, say)
        recipe = _recipe(request, folder)
        run = _run_of(network, data, request)
        journal = open_journal(folder / JOURNAL, run, resume=request.resume)
        if journal.known:
            say(f"{len(journal.known)} accuracies are known from {folder / JOURNAL}")
    if request.method == "gradient":  # nothing evolves
        request = replace(request, generations=0, greedy=0)
    options = Exploration(
        **{field.name: getattr(request, field.name) for field in fields(Scope)},
        network=network,
        seeds=_gradient_seeds(network, user, target, request, folder, say),
        recipe=recipe,
        say=say,
    )
    return Prepared(options, journal, folder, user.name)


def calibrated(user: UserModel, target: Target, seed: int, say: Callable[[str], None]) -> Network:
    """Return the user's network, canonical, with the range of every value."""
    context = Context(target=target, user=user, seed=seed, say=say)
    return Pipeline(parse_passes("canonicalize,calibrate")).run(trace(user), context)


def _gradient_seeds(
    network: Network,
    user: UserModel,
    target: Target,
    request: Request,
    folder: Path,
    say: Callable[[str], None],
) -> tuple[Genome, ...]:
    """Return the settings of the gradient search; none where it is not asked for.

    Raises:
        FrontendError: it is, and there is nothing to train on.
    """
    if request.method == "nsga2":
        return ()
    data = user.data()
    if data is None or data.train is None:
        raise FrontendError(
            f"--method {request.method} trains, and the model file gives no data() with a train "
            "split",
            place=request.model,
            remedy="--method nsga2, or give the file a data()",
        )
    say(f"gradient search: {request.search_epochs} epochs over all widths")
    options = GradientSearch(
        bits=request.bits,
        points=GRADIENT_POINTS,
        epochs=request.search_epochs,
        float_epochs=0 if "accuracy" in request.objectives else request.float_epochs,
        seed=request.seed,
        folder=folder / ".enos" / "gradient",
        say=say,
    )
    return gradient_front(network, data, target, options)


def _with_weights(
    network: Network,
    data: Data,
    request: Request,
    folder: Path,
    say: Callable[[str], None],
) -> Network:
    """Return the network with the weights that all settings share, kept in its folder.

    A run that goes on takes those of the run before.
    """
    kept = folder / NETWORK
    if request.resume and kept.is_dir():
        return load_same(kept, network)
    settings = SearchSettings(
        epochs=FLOAT_EPOCHS,
        pretrain=request.float_epochs,
        budget=Budget.parse("unlimited"),
        learning_rate=LEARNING_RATE,
        architecture_rate=0.0,
        warm_up=0.0,
        seed=request.seed,
        folder=folder / ".enos",
        say=say,
    )
    trained, section = train_float(network, data.for_network(network), settings)
    trained = trained.with_section("float", section)
    with staged_outputs(folder, last=NETWORK) as stage:
        (stage / NETWORK).mkdir()
        save_network(trained, stage / NETWORK)
    return trained


def _recipe(request: Request, folder: Path) -> Recipe:
    """Return what workers measure with; paths are absolute, since theirs may differ."""
    place, colon, function = request.model.partition(":")
    path = Path(place)
    model = str(path.resolve()) + colon + function if path.is_file() else request.model
    return Recipe(
        network=str((folder / NETWORK).resolve()),
        model=model,
        model_args=tuple(sorted(request.model_args.items())),
        seed=request.seed,
        images=request.images,
    )


def _run_of(network: Network, data: Data, request: Request) -> str:
    """Return the hash of everything that an accuracy depends on beside bits and tier."""
    decisive = (LEARNING_RATE, request.seed, request.images)
    content = fingerprint(network, decisive, data.for_network(network))
    return hashlib.sha256(content.encode()).hexdigest()
