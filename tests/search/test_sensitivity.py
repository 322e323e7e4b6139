# SPDX-License-Identifier: Apache-2.0
"""Scores without training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_network import build, offer
from torch.nn import functional as F  # noqa: N812

from enos_compiler.assign.sensitivity import PERTURBATION, _Probe, score_layers
from enos_compiler.cores.attach import Request, attach_choices
from enos_compiler.cores.target import load_target
from enos_compiler.ir.choice import Bits, Choice
from enos_compiler.ir.network import Network
from enos_compiler.operators.mac import Mac
from enos_compiler.semantics.formats import format_at
from enos_compiler.semantics.quantizer import dequantize, quantize_codes


@pytest.fixture
def offered() -> Network:
    return offer(build(), ("mac", "shift", "mf"), (8, 6, 4))


def test_operators_that_need_training_are_dropped_with_a_note(offered: Network) -> None:
    found = score_layers(offered, images=8, seed=0)
    layer = found.layers["c2"]
    assert {c.operator for c in layer.choices} == {"mac"}
    assert (
        len(layer.choices) == len(layer.costs) == len(layer.programming) == len(layer.scores or ())
    )
    noted = {(r.core, r.operator) for r in layer.refusals if "needs training" in r.reason}
    assert noted == {("mac", "shift"), ("xbar", "mf")}
    assert found.untrained == ()
    assert found.dropped == sum(
        c.operator != "mac" for layer in offered.layers.values() for c in layer.choices
    )


def test_narrower_is_noisier(offered: Network) -> None:
    found = score_layers(offered, images=8, seed=0)
    for layer in found.layers.values():
        by_bits = dict(zip((c.bits for c in layer.choices), layer.scores or (), strict=True))
        for bits, score in by_bits.items():
            for field in ("input", "weight", "output"):
                wider = bits._replace(**{field: 8})
                if wider in by_bits and wider != bits:
                    assert by_bits[wider] <= score, (layer.name, bits)


def test_score_is_noise_times_gain_measured_by_hand(offered: Network) -> None:
    """c3 at 4/6/4, its noise and its gain recomputed with torch alone."""
    images = 8
    found = score_layers(offered, images=images, seed=0)
    layer = found.layers["c3"]
    score = (layer.scores or ())[layer.choices.index(Choice("mac", "mac", Bits(4, 6, 4)))]
    t = {n: p.detach() for n, p in offered.graph.state_dict().items()}
    tensors: dict[str, torch.Tensor] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            tensors[n.name] = super().run_node(n)
            return tensors[n.name]

    with torch.no_grad():
        Recorder(offered.graph).run(offered.example_inputs[0][:images])

        def rounded(value: str, bits: int) -> torch.Tensor:
            fmt = format_at(offered, value, bits)
            return torch.from_numpy(dequantize(quantize_codes(tensors[value].numpy(), fmt), fmt))

        gain = t["n3_w"] / torch.sqrt(t["n3_var"] + 1e-5)
        weight, _ = Mac().weight_forms(t["c3_weight"] * gain.view(-1, 1, 1, 1), 6)
        assert weight is not None
        shift = t["n3_b"] - t["n3_mean"] * gain
        r3 = tensors["r3"]
        noisy = F.relu(F.conv2d(rounded("pool", 4).float(), weight, shift, padding=1))
        power = r3.square().mean()
        noise = ((noisy - r3).square().mean() + (rounded("r3", 4) - r3).square().mean()) / power
        generator = torch.Generator().manual_seed(0)
        perturbation = torch.randn(r3.shape, generator=generator)
        perturbation *= torch.sqrt(PERTURBATION * power / perturbation.square().mean())
        out = tensors["out"]
        moved = F.linear((r3 + perturbation).mean((2, 3)), t["out_weight"], t["out_bias"]) - out
        reach = moved.square().mean() / (out - out.mean(0)).square().mean() / PERTURBATION
    assert score == pytest.approx(float(noise * reach), rel=1e-4)


def test_output_that_is_the_result_is_not_rounded(offered: Network) -> None:
    layer = score_layers(offered, images=8, seed=0).layers["out"]
    scores = dict(zip((c.bits for c in layer.choices), layer.scores or (), strict=True))
    assert scores[Bits(8, 8, 8)] == scores[Bits(8, 8, 4)]


def test_layer_without_a_training_free_choice_keeps_what_it_has(offered: Network) -> None:
    only = [i for i, c in enumerate(offered.layers["c2"].choices) if c.operator == "mf"]
    c2 = offered.layers["c2"]
    c2 = replace(
        c2,
        choices=tuple(c2.choices[i] for i in only),
        costs=tuple(c2.costs[i] for i in only),
        programming=tuple(c2.programming[i] for i in only),
    )
    found = score_layers(offered.with_layers({"c2": c2}), images=8, seed=0)
    assert found.untrained == ("c2",)
    scores = found.layers["c2"].scores or ()
    assert len(scores) == len(only)
    assert all(np.isfinite(s) and s > 0 for s in scores)


def test_operator_that_is_no_convolution_is_scored_by_its_own_sum() -> None:
    """The distances of adder by their definition, fitted to c2's sums by least squares."""
    request = Request(("mac", "adder"), (4,), (4,))
    network = attach_choices(build(width=6), load_target("digital"), request)[0]
    found = score_layers(network, images=8, seed=0, training=True)
    layer = found.layers["c2"]
    row = next(i for i, c in enumerate(layer.choices) if c.operator == "adder")
    probe = _Probe(network, (network.example_inputs[0][:8],))
    fmt = format_at(network, "r1", 4)
    codes = quantize_codes(probe.found["r1"].numpy(), fmt).astype(np.float64) - fmt.zero_point
    weight = network.tensor("c2_weight").detach().numpy().astype(np.float64)
    steps = np.clip(np.rint(weight / fmt.scale), -8, 7)
    padded = np.pad(codes, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    norm, wanted = probe.found["n2"].numpy(), probe.found["c2"].numpy()
    error = 0.0
    for m in range(6):
        distances = np.abs(np.moveaxis(windows, 1, 3) - steps[m]).sum((3, 4, 5)).ravel()
        design = np.stack((distances, np.ones_like(distances)), 1)
        fitted = design @ np.linalg.lstsq(design, wanted[:, m].ravel(), rcond=None)[0]
        slope = (norm[0, m].max() - norm[0, m].min()) / (wanted[0, m].max() - wanted[0, m].min())
        error += np.square((fitted - wanted[:, m].ravel()) * slope).sum()
    by_hand = error / np.square(norm).sum() + probe.output_noise(layer, 4)
    score = (layer.scores or ())[row]
    assert score == pytest.approx(found.gains["c2"] * by_hand, rel=1e-3)


def test_same_seed_same_scores(offered: Network) -> None:
    first, second = (score_layers(offered, images=4, seed=3) for _ in range(2))
    assert [v.scores for v in first.layers.values()] == [v.scores for v in second.layers.values()]
