# SPDX-License-Identifier: Apache-2.0
"""The picture of a nest: golden text, and its width."""

from __future__ import annotations

import random

from small_machines import four_levels, random_shape, three_levels

from enos_compiler.errors import InfeasibleError
from enos_compiler.ir.shape import LayerShape
from enos_compiler.mapping.explain import WIDTH, explain
from enos_compiler.mapping.machine import ComputeSpec, Machine, StorageLevel
from enos_compiler.mapping.mapper import map_layer

MACHINE = Machine(
    "small",
    ComputeSpec(4, 2, 1.0),
    (
        StorageLevel("pe", 4, 2, entries=8, read_pj=1.0, fill_pj=1.0, update_pj=1.0),
        StorageLevel("memory", read_pj=50.0, update_pj=50.0, shared_bandwidth=1.0),
    ),
)
PICTURE = """\
N3 M4 C4 on small

memory: Weights 16  Inputs 12  Outputs 12
  for N in 3
    spread over Y: M 2
      spread over X: C 2
pe: Weights 4  Inputs 2  Outputs 2  (8 of 8 words)
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

energy 2,256 pJ
  mac                        #                          2.1 %            48 pJ
  pe                         ##                         9.2 %           208 pJ
  memory                     #####################     88.7 %          2000 pJ

40 cycles, bound by memory; 30.0 % of all MACs' work
edp 90240 pJ x cycles, no nest of the space below 90240
optimal: 2 of 4 spatial choices opened, 18 tiles"""


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
    last = explain(best, MACHINE, runner_up=second).splitlines()[-1]
    assert last.startswith("runner-up ")


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
