# SPDX-License-Identifier: Apache-2.0
"""The picture of a nest: golden text, and its width."""

from __future__ import annotations

import random

from small_machines import four_levels, random_shape, three_levels

from enos_compiler.errors import InfeasibleError
from enos_compiler.ir.shape import LayerShape
from enos_compiler.ir.units import energy_text
from enos_compiler.mapping.count import EXACT, PLAIN, REFERENCE, count_events
from enos_compiler.mapping.explain import WIDTH, explain
from enos_compiler.mapping.machine import ComputeSpec, Machine, StorageLevel
from enos_compiler.mapping.mapper import map_layer
from enos_compiler.mapping.problem import Problem

MACHINE = Machine(
    "small",
    ComputeSpec(4, 2, 1.0),
    (
        StorageLevel("pe", 4, 2, entries=8, read_pj=1.0, fill_pj=1.0, update_pj=1.0),
        StorageLevel("memory", read_pj=50.0, update_pj=50.0, shared_bandwidth=1.0),
    ),
)
PICTURE = """\
N3 M4 C4 on small: 48 MACs

memory: tile N3 M4 C4
  holds Weights 16 + Inputs 12 + Outputs 12 words
    for N in 3
      over rows: M 2
        over columns: C 2
pe (4 of 4 in use): tile M2 C2
  holds Weights 4 + Inputs 2 + Outputs 2 = 8 of 8 words (100%)
          for C in 2
            for M in 2
MAC: 4 of 4 in use

words, all instances                        reads          fills        updates
  pe                    Weights                48             16              0
  pe                    Inputs                 48             24              0
  pe                    Outputs                24              0             48
  memory                Weights                16              0              0
  memory                Inputs                 12              0              0
  memory                Outputs                 0              0             12

energy 2.26 nJ, 47 pJ a MAC
  mac                        #                          2.1 %       0.05 nJ
  pe                         ##                         9.2 %       0.21 nJ
  memory                     #####################     88.7 %       2.00 nJ

40 cycles, bound by the bandwidth of memory
  (computing alone takes 12); 30.0 % of what all 4 MACs could do
counted by the reference rule (Timeloop's): input tiles overlap as far as
  Timeloop's two-iteration walk sees; neighbours pass data on

minimised: edp = 90240 pJ x cycles by the mapper's price
bound:     no nest of the mapspace is below 90240
price:     2.26 nJ, equal to what is counted above
optimal: 2 of 4 spatial choices opened, 18 tiles
mapspace:
  pe: keeps Weights Inputs Outputs; loops free
  memory: keeps Weights Inputs Outputs; loops free; X over G N M C P Q R S; Y
    over G N M C P Q R S
The proof covers the plain rule in real numbers: words read, filled and updated,
re-read partial sums, hops, every router pass, leakage, and the bandwidth of
each level. Outside it, but counted above: rounding to whole words and blocks,
data that neighbours pass on, distance saved where input boxes coincide along
two dimensions; nests close to the optimum are not priced again with these."""


def test_picture() -> None:
    shape = LayerShape(n=3, m=4, c=4)
    assert explain(map_layer(shape, MACHINE, engine="numpy"), MACHINE) == PICTURE


def test_runner_up_has_other_spatial_factors() -> None:
    shape = LayerShape(n=3, m=4, c=4)
    best = map_layer(shape, MACHINE)
    second = map_layer(shape, MACHINE, without=best.nest)
    assert second.certificate.value >= best.certificate.value
    assert [dict(level.spatial) for level in second.nest.levels] != [
        dict(level.spatial) for level in best.nest.levels
    ]
    text = explain(best, MACHINE, runner_up=second)
    more = 100 * (second.certificate.value / best.certificate.value - 1)
    assert f"runner-up: {second.certificate.value:.6g} (+{more:.3g} %), over " in text


def test_the_rule_that_counted_is_named() -> None:
    """And is the one that counted: forwarding makes the difference here."""
    result = map_layer(LayerShape(p=8, r=3, m=4), MACHINE, engine="numpy")
    texts = {rule: explain(result, MACHINE, rule=rule) for rule in (REFERENCE, PLAIN, EXACT)}
    assert "\ncounted by the plain rule: input tiles overlap along the innermost" in texts[PLAIN]
    assert "\ncounted by the exact rule: input tiles keep every element" in texts[EXACT]
    problem = Problem.from_shape(result.shape)
    for rule, text in texts.items():
        energy = count_events(problem, MACHINE, result.nest, rule=rule).energy_pj(MACHINE)
        assert f"\nenergy {energy_text(energy)}, " in text


def test_every_picture_fits_80_columns() -> None:
    for seed in range(25):
        rng = random.Random(seed)
        machine = three_levels(rng, limited=True) if seed % 2 else four_levels(rng)
        try:
            result = map_layer(random_shape(rng, 5000), machine)
        except InfeasibleError:
            continue
        text = explain(result, machine, runner_up=result)
        assert max(map(len, text.splitlines())) <= WIDTH
