# SPDX-License-Identifier: Apache-2.0
"""Assignment, schedule and report on the shipped chips, from a traced network."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from functools import cache

import jsonschema
import pytest
import torch
from torch import Tensor, nn

from enos_compiler.assign.assignment import price
from enos_compiler.cores.accounting import itemise
from enos_compiler.cores.target import Target, load_target
from enos_compiler.errors import PassError
from enos_compiler.frontend.trace import trace
from enos_compiler.frontend.user import UserModel
from enos_compiler.ir.network import Network
from enos_compiler.pass_text import parse_passes
from enos_compiler.pipeline import Context, Pipeline
from enos_compiler.report.build import build_report, report_schema
from enos_compiler.semantics.widths import asked_bits, coded_inputs, stored_bits

PREPARE = "canonicalize,calibrate,attach-choices{operators=mac|mf|bw weight_bits=8|4}"


class Residual(nn.Module):
    """Two branches, an addition, pooling, a view and a table before the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.left = nn.Conv2d(8, 8, 3, padding=1)
        self.right = nn.Conv2d(8, 8, 1)
        self.narrow = nn.Linear(8 * 4 * 4, 16)
        self.last = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.left(x)) + torch.relu(self.right(x))
        x = nn.functional.max_pool2d(x, 2)
        x = torch.sigmoid(self.narrow(torch.flatten(x, 1)))
        y: Tensor = self.last(x)
        return y


@cache
def _prepared(name: str) -> tuple[Target, Network]:
    torch.manual_seed(0)
    target = load_target(name)
    user = UserModel.from_module(Residual().eval(), (torch.rand(2, 3, 8, 8),))
    net = _passes(PREPARE, trace(user, batch=1), target)
    rng = random.Random(1)
    scored = {
        n: replace(
            node,
            scores=tuple(
                (24 - sum(c.bits)) / 8 + (c.operator != "mac") + rng.random() for c in node.choices
            ),
        )
        for n, node in net.layers.items()
    }
    return target, replace(net.with_layers(scored), facts=net.facts | {"scored"})


def _passes(text: str, net: Network, target: Target) -> Network:
    return Pipeline(parse_passes(text)).run(net, Context(target=target))


@pytest.mark.parametrize("name", ["digital", "cim", "hybrid"])
@pytest.mark.parametrize("budget", ["floor+0", "floor+0.5", "unlimited"])
def test_report_of_a_compiled_network(name: str, budget: str) -> None:
    target, net = _prepared(name)
    done = _passes(f"assign{{budget={budget}}},map-digital,map-cim,schedule", net, target)
    report = build_report(
        done, target, accuracy=None, checks={"level": "none"}, seed=0, model_name="residual"
    )
    jsonschema.validate(report, report_schema(), jsonschema.Draft202012Validator)
    if budget != "unlimited":
        assert report["totals"]["energy_pj"] <= report["budget"]["energy_pj"]
        assert report["budget"]["floor_pj"] <= report["budget"]["energy_pj"]
    assert report["totals"]["energy_pj"] <= report["sections"]["assign"]["price_pj"]
    assert done.program is not None
    expected: Counter[str] = Counter()
    for cost in itemise(done, target).costs():
        expected.update(cost.events)
    found: Counter[str] = Counter()
    for instruction in done.program.instructions:
        found.update(instruction.events)
    assert found == expected
    assert done.program.lower_bound_ns <= done.program.makespan_ns
    assert done.program.makespan_ns <= itemise(done, target).busy_ns
    for layer in done.layers.values():
        kind = target.cores[layer.choice.core].kind if layer.choice else ""
        assert (layer.mapping is None) == (kind != "loop-nest")
        assert (layer.placement is None) == (kind != "crossbar")


def test_no_random_assignment_beats_the_solver() -> None:
    """Random assignments that keep the width rules are dearer than the floor, or score worse."""
    target, net = _prepared("hybrid")
    done = _passes("assign{budget=floor+0.3}", net, target)
    summary = done.sections["assign"]
    rng = random.Random(2)
    tried = 0
    for _ in range(3000):
        layers = {n: replace(v, choice=rng.choice(v.choices)) for n, v in net.layers.items()}
        vectors = {n: replace(v, bits=rng.choice((4, 8))) for n, v in net.vectors.items()}
        found = net.with_layers(layers).with_vectors(vectors)
        if not _keeps_the_rules(found):
            continue
        tried += 1
        energy = price(found, target).energy_pj
        score = sum(
            v.scores[v.choices.index(v.choice)]
            for v in found.layers.values()
            if v.scores and v.choice
        )
        assert energy >= summary["floor_pj"] * (1 - 1e-12)
        assert energy > summary["budget_pj"] or score >= summary["score"] - 1e-9
    assert tried > 10


def _keeps_the_rules(net: Network) -> bool:
    for node in net.nodes():
        for value in coded_inputs(net, node):
            asked, stored = asked_bits(node, value), stored_bits(net, value)
            if asked is not None and asked > stored:
                return False
            moves = node.name in net.vectors and net.vectors[node.name].op in (
                "max_pool",
                "reshape",
            )
            if moves and asked != stored:
                return False
            if asked is None and net.vectors[node.name].bits > stored:
                return False
    return True


def test_assign_without_scores_says_what_to_run() -> None:
    target, net = _prepared("digital")
    bare = replace(net, facts=net.facts - {"scored"})
    with pytest.raises(PassError) as caught:
        _passes("assign", bare, target)
    assert str(caught.value) == (
        "pass assign: requires scores, which no earlier pass has given\n"
        "  try: run search or sensitivity before it, or assign{budget=baseline}"
    )
