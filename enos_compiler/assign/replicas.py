# SPDX-License-Identifier: Apache-2.0
"""Replicas of weights that balance a pipeline of inferences.

Where inferences follow each other and every resident layer has arrays of its own, a new one enters
whenever the slowest stage is done: a layer on arrays, layers that share weights together, or all
that one core does of what stays in no arrays. More copies of a layer's weights share its output
positions, so arrays left over shorten the interval. Memories and links are not looked at: what they
allow is in each layer's own latency. A program has the layers of one core run one after another;
it gains what the copies take off their sum.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from enos_compiler.assign.figures import figures_of
from enos_compiler.cores.accounting import itemise
from enos_compiler.cores.base import HasArrays
from enos_compiler.cores.crossbar_options import copies_of, with_copies
from enos_compiler.ir.choice import Choice
from enos_compiler.ir.network import Layer, Network

if TYPE_CHECKING:
    from enos_compiler.cores.target import Target


@dataclass(frozen=True, slots=True)
class Replica:
    """A stage with a number of copies."""

    copies: int
    latency_ns: float
    arrays: Mapping[str, int]
    """Whole arrays that they fill, by size."""


def balance(
    stages: Mapping[str, Sequence[Replica]],
    capacities: Mapping[str, int],
    *,
    least_ns: float = 0.0,
    accepts: Callable[[Mapping[str, int]], bool] = lambda _: True,
) -> dict[str, int] | None:
    """Return copies by stage under which the longest stage is shortest; None where nothing fits.

    Each stage takes the fewest copies that keep up, so the result is the least interval that the
    arrays allow, and the least of those accepted where fewer copies are never accepted less.

    Args:
        stages: what each stage may be.
        capacities: arrays that there are.
        least_ns: what other stages take anyway; shorter ones than that are of no use.
        accepts: whether copies by stage meet what else is asked of them.
    """
    latencies = {max(r.latency_ns, least_ns) for rows in stages.values() for r in rows}
    limits = sorted(latencies | {least_ns})
    for limit in limits:
        able = {name: [r for r in rows if r.latency_ns <= limit] for name, rows in stages.items()}
        if not all(able.values()):
            continue
        taken = {name: min(rows, key=lambda r: r.copies) for name, rows in able.items()}
        copies = {name: replica.copies for name, replica in taken.items()}
        if _fits(taken.values(), capacities) and accepts(copies):
            return copies
    return None


def _fits(taken: Iterable[Replica], capacities: Mapping[str, int]) -> bool:
    used: Counter[str] = Counter()
    for replica in taken:
        used.update(replica.arrays)
    return all(n <= capacities.get(size, 0) for size, n in used.items())


def replicated(
    network: Network, target: Target, measure: str = "energy", allowed: float | None = None
) -> tuple[Network, dict[str, Any]]:
    """Return an assigned network with copies that balance its pipeline, and a summary.

    Layers keep all but the copies of their weights, chosen among those attached. A network whose
    layers fill more arrays than there are, or that no copies keep within the budget, or that no
    copies make faster, is returned as it is.

    Args:
        network: assigned.
        target: the chip.
        measure: what the budget binds, see `assign.figures`.
        allowed: most of it; None: any.
    """
    groups = _groups(network, target)
    stages = {key: _replicas(target, layers) for key, layers in groups.items()}
    shared_ns = _shared_ns(network, target, groups)
    capacities = {
        f"{name}.{size}": count
        for name, core in target.cores.items()
        for size, count in core.capacities().items()
    }

    def accepts(copies: Mapping[str, int]) -> bool:
        if allowed is None:
            return True
        return figures_of(_with(network, groups, copies), target).of(measure) <= allowed

    before = {key: copies_of(_choice(layers[0])) for key, layers in groups.items()}
    begun_ns = _interval(stages, before, shared_ns)
    found = balance(stages, capacities, least_ns=shared_ns, accepts=accepts)
    copies = before if found is None else found
    no_faster = _interval(stages, copies, shared_ns) >= begun_ns
    if no_faster and _fits(_taken(stages, before), capacities):
        copies = before
    changed = _with(network, groups, copies)
    return changed, {
        "balanced": found is not None,
        "interval_ns": {
            "before": begun_ns,
            "after": _interval(stages, copies, shared_ns),
        },
        "price_pj": figures_of(changed, target).energy,
        "copies": {layer.name: copies[key] for key, layers in groups.items() for layer in layers},
    }


def _groups(network: Network, target: Target) -> dict[str, list[Layer]]:
    """Return the layers that stay in arrays, those with the same weights together."""
    groups: defaultdict[str, list[Layer]] = defaultdict(list)
    for layer in network.layers.values():
        if _arrays(target, layer, _choice(layer)):
            groups[layer.tie].append(layer)
    return dict(groups)


def _replicas(target: Target, layers: Sequence[Layer]) -> list[Replica]:
    """Return what the copies attached to all layers of a group make of it."""
    found = []
    first = layers[0]
    for copies in sorted({copies_of(choice) for choice in first.choices}):
        variants = [with_copies(_choice(layer), copies) for layer in layers]
        if all(v in layer.choices for v, layer in zip(variants, layers, strict=True)):
            costs = [layer.cost_of(v) for v, layer in zip(variants, layers, strict=True)]
            arrays = _arrays(target, first, variants[0])
            found.append(Replica(copies, sum(cost.latency_ns for cost in costs), arrays))
    return found


def _shared_ns(network: Network, target: Target, groups: Mapping[str, Sequence[Layer]]) -> float:
    """Return the longest that one core works on an inference, arrays that hold weights aside."""
    held = {layer.name for layers in groups.values() for layer in layers}
    items = itemise(network, target)
    busy: defaultdict[str, float] = defaultdict(float)
    for layer in network.layers.values():
        if layer.name not in held:
            busy[_choice(layer).core] += items.layers[layer.name].latency_ns
    on_vectors = sum(cost.latency_ns for cost in items.vectors.values())
    on_host = sum(cost.latency_ns for cost in items.host.values())
    return max(on_vectors, on_host, *busy.values())


def _interval(
    stages: Mapping[str, Sequence[Replica]], copies: Mapping[str, int], shared_ns: float
) -> float:
    return max([shared_ns, *(replica.latency_ns for replica in _taken(stages, copies))])


def _taken(stages: Mapping[str, Sequence[Replica]], copies: Mapping[str, int]) -> list[Replica]:
    return [r for key, rows in stages.items() for r in rows if r.copies == copies[key]]


def _with(
    network: Network, groups: Mapping[str, Sequence[Layer]], copies: Mapping[str, int]
) -> Network:
    layers = {
        layer.name: replace(layer, choice=with_copies(_choice(layer), copies[key]))
        for key, group in groups.items()
        for layer in group
    }
    return network.with_layers(layers)


def _arrays(target: Target, layer: Layer, choice: Choice) -> dict[str, int]:
    core = target.cores[choice.core]
    if not isinstance(core, HasArrays):
        return {}
    return {f"{choice.core}.{size}": n for size, n in core.arrays_held(layer, choice).items()}


def _choice(layer: Layer) -> Choice:
    if layer.choice is None:
        raise ValueError(f"layer {layer.name} is not assigned")
    return layer.choice
