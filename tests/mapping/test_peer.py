# SPDX-License-Identifier: Apache-2.0
"""No worse than timeloop-mapper on its own ground."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import islice

import pytest
from test_timeloop_reference import FOLDER, needs_reference
from timeloop_mapper import PeerResult, compare_mappers


def check(found: Iterable[PeerResult], say: Callable[[str], None]) -> int:
    """Check every case; return how many there were."""
    ratios = defaultdict(list)
    for one in found:
        assert one.result.certificate.optimal
        # both nests by the full rule: neighbours forward, accesses are rounded to blocks
        assert one.ratio >= 1, one.case
        # which departs from the mapper's own price by the distance of coinciding inputs at most
        assert one.ours == pytest.approx(one.result.certificate.value, rel=6e-3)
        ratios[one.machine].append(one.ratio)
    for machine, all_of_it in sorted(ratios.items()):
        shares = " ".join(f"{1 / ratio:.3f}" for ratio in sorted(all_of_it))
        say(f"{machine}: optimum over Timeloop's best of {len(all_of_it)} layers: {shares}")
    return sum(map(len, ratios.values()))


@needs_reference
def test_no_worse_than_timeloop_mapper_on_some_layers(say: Callable[[str], None]) -> None:
    assert check(islice(compare_mappers(FOLDER), 1, 24, 5), say) == 5


@needs_reference
@pytest.mark.slow
def test_no_worse_than_timeloop_mapper(say: Callable[[str], None]) -> None:
    assert check(compare_mappers(FOLDER), say) == 24
