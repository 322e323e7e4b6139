# SPDX-License-Identifier: Apache-2.0
"""The training module is the network: in float, back again, and rounded as it will be compiled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_network import digits, offer
from torch.nn import functional as F  # noqa: N812

from enos_compiler.ir.choice import Bits, Choice
from enos_compiler.ir.network import Network
from enos_compiler.ir.verify import verify
from enos_compiler.operators.quantize_network import quantize_network
from enos_compiler.search.module import NetworkModule
from enos_compiler.search.tune import assigned_module
from enos_compiler.semantics.reference import run


def assign(network: Network, bits: dict[str, Bits], vector_bits: dict[str, int]) -> Network:
    attached = offer(network, ("mac",), (8, 4))
    layers = {
        name: replace(layer, choice=Choice("mac", "mac", bits[name]))
        for name, layer in attached.layers.items()
    }
    vectors = {name: replace(v, bits=vector_bits[name]) for name, v in network.vectors.items()}
    return attached.with_layers(layers).with_vectors(vectors)


@pytest.fixture
def assigned(small: Network) -> Network:
    bits = {
        "c1": Bits(8, 8, 8),
        "c2": Bits(4, 4, 8),
        "c3": Bits(4, 8, 8),
        "out": Bits(8, 8, 8),
    }
    return assign(small, bits, {"total": 8, "pool": 8, "mean": 8})


def test_float_module_is_the_graph(small: Network) -> None:
    module = NetworkModule(small).eval()
    x = small.example_inputs[0]
    torch.testing.assert_close(module(x), small.graph(x), rtol=1e-5, atol=1e-5)


def test_training_writes_back_parameters_statistics_and_ranges(small: Network) -> None:
    module = NetworkModule(small).train()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    images, labels = digits()
    for _ in range(3):
        loss = F.cross_entropy(module(images[:64]), labels[:64])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    module.eval()
    before = small.graph(images[:8])
    trained = module.write_back()
    verify(trained, "test")
    torch.testing.assert_close(trained.graph(images[:8]), module(images[:8]), rtol=1e-5, atol=1e-5)
    assert torch.equal(small.graph(images[:8]), before), "the network given must stay as it was"
    for name in ("c1_weight", "n1_mean", "n3_var", "out_bias"):
        assert not torch.equal(trained.tensor(name), small.tensor(name)), name
    assert trained.values["r1"].range != small.values["r1"].range
    assert trained.values["pool"].range == trained.values["r2"].range
    assert trained.values["x"].range == small.values["x"].range


def test_sign_of_a_value_stays_as_calibrated(small: Network) -> None:
    """An operator offered on a value that was never negative must stay right."""
    values = {"n2": replace(small.values["n2"], range=(0.0, 1.0))}
    module = NetworkModule(small.with_values(values)).train()
    module(small.example_inputs[0])
    low, high = module.write_back().values["n2"].range or (0.0, 0.0)
    assert low == 0.0
    assert high > 1.0


def compare(assigned: Network) -> tuple[np.ndarray, np.ndarray]:
    """Return what the exact integers of a network compute, and what trains."""
    x = assigned.example_inputs[0]
    (integers,) = run(quantize_network(assigned), (x.numpy(),))
    with torch.no_grad():
        return integers, assigned_module(assigned).eval()(x).numpy()


def test_assigned_module_computes_what_the_integers_do(small: Network) -> None:
    """At 8 bits; a tie may round to the other side, which moves few results by very little."""
    wide = dict.fromkeys(small.layers, Bits(8, 8, 8))
    integers, trained = compare(assign(small, wide, dict.fromkeys(small.vectors, 8)))
    error = np.abs(trained - integers) / np.abs(integers).max()
    assert error.max() < 5e-3
    assert np.median(error) < 5e-4


def test_narrow_assigned_module_differs_by_the_rounding_of_biases(assigned: Network) -> None:
    """At 4 bits a bias rounds to a coarse accumulator unit, which training leaves out."""
    integers, trained = compare(assigned)
    assert np.square(trained - integers).mean() < 1e-3 * np.square(integers).mean()
    plain = assigned.graph(*assigned.example_inputs).detach().numpy()
    assert np.square(trained - integers).mean() < 0.1 * np.square(plain - integers).mean()


def test_every_parameter_of_the_assigned_module_has_a_gradient(assigned: Network) -> None:
    module = assigned_module(assigned).train()
    images, labels = digits()
    F.cross_entropy(module(images[:32]), labels[:32]).backward()  # type: ignore[no-untyped-call]
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name


def test_frozen_normalisations_keep_their_statistics(assigned: Network) -> None:
    module = assigned_module(assigned).train()
    module.freeze_norms = True
    before = module.state_dict()["n1_mean"].clone()
    module(assigned.example_inputs[0])
    assert torch.equal(module.state_dict()["n1_mean"], before)
    module.freeze_norms = False
    module(assigned.example_inputs[0])
    assert not torch.equal(module.state_dict()["n1_mean"], before)
