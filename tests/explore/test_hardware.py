# SPDX-License-Identifier: Apache-2.0
"""Costs from tables are those of the assigned network, whatever its bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from enos_compiler.assign.assignment import price
from enos_compiler.cores.accounting import itemise
from enos_compiler.cores.target import Target, load_target
from enos_compiler.errors import RefusalError, UsageError
from enos_compiler.explore.hardware import HardwareTables, Placed, build_tables, place
from enos_compiler.explore.plan import BitPlan, as_genome
from enos_compiler.explore.point import assigned
from enos_compiler.frontend.calibrate import calibrate, example_batches
from enos_compiler.frontend.canonical import lower
from enos_compiler.frontend.trace import trace
from enos_compiler.ir.network import Network
from enos_compiler.ir.verify import verify
from enos_compiler.semantics.widths import read_bits, stored_bits

BITS = (2, 5, 8)


class Branches(nn.Module):
    """A residual add, a concatenation, a pool and a shared layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.left = nn.Conv2d(4, 4, 3, padding=1)
        self.right = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = torch.relu(self.left(x)) + x
        z = torch.relu(self.right(nn.functional.max_pool2d(y, 2)))
        z = torch.relu(self.right(z))
        pooled = torch.cat([z, nn.functional.max_pool2d(x, 2)], 1)
        return self.head(pooled.mean([2, 3]))  # type: ignore[no-any-return]


def network() -> Network:
    torch.manual_seed(0)
    traced = lower(trace(Branches().eval(), (torch.rand(2, 3, 4, 4),)))
    return calibrate(traced, example_batches(traced))


@pytest.fixture(scope="module")
def chip(tmp_path_factory: pytest.TempPathFactory) -> Target:
    return load_target("eyeriss", mapping_cache=tmp_path_factory.mktemp("mappings"))


@pytest.fixture(scope="module")
def placed(chip: Target) -> Placed:
    return place(network(), chip, BITS)


@pytest.fixture(scope="module")
def tables(placed: Placed, chip: Target) -> HardwareTables:
    return build_tables(placed, chip, BITS)


def genomes(layers: int) -> st.SearchStrategy[tuple[tuple[int, int], ...]]:
    bits = st.sampled_from(BITS)
    return st.lists(st.tuples(bits, bits), min_size=layers, max_size=layers).map(as_genome)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_tables_price_what_the_compiler_prices(
    data: st.DataObject, placed: Placed, tables: HardwareTables, chip: Target
) -> None:
    genome = data.draw(genomes(len(placed.network.layers)))
    found = tables.cost([genome])
    made = assigned(placed, chip, genome)
    assert found.energy_pj[0] == pytest.approx(price(made, chip).energy_pj, rel=1e-12)
    assert found.latency_ns[0] == pytest.approx(itemise(made, chip).busy_ns, rel=1e-12)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_widths_are_those_of_the_assigned_network(
    data: st.DataObject, placed: Placed, chip: Target
) -> None:
    """The plan's widths against `semantics.widths` on the assigned network, node by node."""
    plan = BitPlan(placed.network)
    genome = data.draw(genomes(len(plan.names)))
    widths = plan.widths([genome])
    made = assigned(placed, chip, genome)
    verify(made, "test")
    for value, bits in widths.values.items():
        assert bits[0] == stored_bits(made, value)
    for value, _, consumer in made.edges():
        read = plan.read_bits(widths, consumer, value)[0]
        assert read == read_bits(made, made.node(consumer), value) <= widths.values[value][0]


def test_a_layer_writes_what_its_consumer_reads(placed: Placed) -> None:
    """As in the paper, where a value has one reader; the wider of two where it has more."""
    plan = BitPlan(placed.network)
    stem, left, first, _second, head = plan.names
    bits = {stem: (8, 8), left: (4, 4), first: (2, 5), head: (5, 2)}
    genome = tuple(bits.get(n, (4, 8)) for n in plan.names)
    layers, _ = plan.bits(genome)
    assert layers[left].output == 2  # read by the add, which writes what the next layer reads
    assert layers[stem].output == 5  # read by `left` at 4, by the add at 2, by the head at 5
    assert layers[head].output == 8
    shared = [layers[n].weight for n in (first, _second)]
    assert shared == [5, 5]  # one weight, one width: the first one's


def test_memory_counts_shared_weights_once(placed: Placed) -> None:
    plan = BitPlan(placed.network)
    weights = sum(p.numel() for n, p in Branches().named_parameters() if "weight" in n)
    found = plan.memory_bits([plan.uniform(8), plan.uniform(2)])
    assert np.array_equal(found, [8 * weights, 2 * weights])


def test_a_genome_of_another_network_is_refused(placed: Placed) -> None:
    with pytest.raises(UsageError, match="for 5 layers"):
        BitPlan(placed.network).widths([((8, 8),)])


def test_widths_that_no_core_takes_are_refused() -> None:
    with pytest.raises(RefusalError, match="no core takes it as mac"):
        place(network(), load_target("mc2ram"), (2, 8))
