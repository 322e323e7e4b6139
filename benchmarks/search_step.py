# SPDX-License-Identifier: Apache-2.0
"""Time and memory of one step of every search method beside a plain float32 training step.

    python benchmarks/search_step.py [--quick] [--threads N] [--json FILE]

ResNet-20 on 32x32 images, batch 64, every layer but the first and last with 15 candidates: mac and
mf at 8, 6, 4, 3 and 2 bits, shift at 4, 3 and 2, bw and xnor. A plain step is forward, backward and
Adam of the same network in PyTorch, in the faster of the two memory layouts. Steps are timed in
turn, one of each per round; a ratio is that of the medians of CPU time on one thread, of wall time
on several. The naive supernet runs every candidate by itself. With adder (4, 3 and 2 bits) values
have 8 or 4 bits, for adder reads 4; `sampled` is the variational step. Limits: mixed 1.8,
sequential 1.2, variational 1.4, memory 1.8; with adder mixed 6, sampled 4.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import importlib
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import resnet20_cifar10

from enos_compiler import compiled
from enos_compiler.compiler import Hooks, run_passes
from enos_compiler.cores.target import load_target
from enos_compiler.frontend.trace import trace
from enos_compiler.frontend.user import UserModel
from enos_compiler.ir.network import Network
from enos_compiler.pass_text import parse_passes
from enos_compiler.search.architecture import Architecture, SearchedWidths
from enos_compiler.search.budget import Limit
from enos_compiler.search.energy import expected_energy
from enos_compiler.search.forms import Call, LayerForm, add_bias, operator_sum
from enos_compiler.search.methods import MethodOptions, make_method
from enos_compiler.search.mixture import CompositeMixture
from enos_compiler.search.module import NetworkModule
from enos_compiler.search.run import estimate_signs
from enos_compiler.search.train import Objective

BATCH = 64
OPERATORS, ACTIVATION_BITS = "mac|bw|mf|shift|xnor", "8"
LIMITS = {
    "mixed": 1.8,
    "sequential": 1.2,
    "variational": 1.4,
    "memory": 1.8,
    "adder_mixed": 6.0,
    "adder_sampled": 4.0,
}

Step = Callable[[], None]


def offered_network(operators: str = OPERATORS, activations: str = ACTIVATION_BITS) -> Network:
    """Return ResNet-20 with choices on the digital target."""
    passes = (
        f"canonicalize,calibrate,attach-choices{{operators={operators} weight_bits=8|6|4|3|2 "
        f"activation_bits={activations}}}"
    )
    user = UserModel.from_module(
        resnet20_cifar10.model(), (torch.randn(16, 3, 32, 32),), data=None, name="resnet20"
    )
    steps = parse_passes(passes)
    target = load_target("digital")
    network, _, _ = run_passes(trace(user, batch=1), steps, target, Hooks(), user=user)
    return network


def plain_step(layout: torch.memory_format) -> Step:
    """Return a step of the float network in one memory layout."""
    module = copy.deepcopy(resnet20_cifar10.model()).train().to(memory_format=layout)
    images, labels = _batch()
    images = images.contiguous(memory_format=layout)
    optimiser = torch.optim.Adam(module.parameters())
    return lambda: _train(lambda: module(images), labels, optimiser)


def method_step(network: Network, name: str) -> Step:
    """Return a step of a search method in the middle of its run."""
    architecture = Architecture(network)
    options = MethodOptions(items=50_000)
    energy = expected_energy(network, load_target("digital"))
    limit = Limit(energy, 0.9 * float(energy(architecture.relaxed).detach()), 1e7)
    method = make_method("single" if name == "mixed" else name, architecture, limit, 0.0, options)
    estimate_signs(architecture, BATCH)
    module = NetworkModule(network, architecture.forms(), SearchedWidths(architecture)).train()
    return _searched(module, architecture, method)


def naive_step(network: Network) -> Step:
    """Return a step in which every candidate is a branch of its own."""
    architecture = Architecture(network)
    forms = architecture.forms()

    def branches(name: str) -> LayerForm:
        mixture = architecture.spaces[name].mixture
        if not isinstance(mixture, CompositeMixture):
            return forms[name]

        def compute(call: Call) -> Tensor:
            space = architecture.spaces[name]
            shares = space.shares(architecture.probabilities[name]).candidates
            x = call.read(call.layer.inputs[0], 8)
            total = sum(
                share * operator_sum(call, x, (operator, 8, bits))
                for share, (operator, bits, _) in zip(shares, mixture.candidates, strict=True)
            )
            return add_bias(call, torch.as_tensor(total))

        return compute

    energy = expected_energy(network, load_target("digital"))
    limit = Limit(energy, math.inf, 1e7)
    method = make_method("single", architecture, limit, 0.0, MethodOptions())
    module = NetworkModule(
        network, {name: branches(name) for name in forms}, SearchedWidths(architecture)
    ).train()
    return _searched(module, architecture, method)


def _searched(module: NetworkModule, architecture: Architecture, method: Objective) -> Step:
    images, labels = _batch()
    parameters = [*module.parameters(), *architecture.parameters()]
    optimiser = torch.optim.Adam(parameters)

    def step() -> None:
        method.before_batch(0.5)
        _train(lambda: module(images)[0], labels, optimiser, method.penalty)
        method.after_batch()

    return step


def _train(
    forward: Callable[[], Tensor],
    labels: Tensor,
    optimiser: torch.optim.Optimizer,
    penalty: Callable[[], Tensor | None] = lambda: None,
) -> None:
    loss = nn.functional.cross_entropy(forward(), labels)
    extra = penalty()
    optimiser.zero_grad(set_to_none=True)
    (loss if extra is None else loss + extra).backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def _batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, 3, 32, 32, generator=generator)
    return images, torch.randint(10, (BATCH,), generator=generator)


def medians(
    steps: dict[str, Step], rounds: int, clock: Callable[[], float], unmeasured: int = 2
) -> dict[str, float]:
    """Return the median time of each step in seconds, steps in turn, first rounds unmeasured."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + unmeasured):
        for name, step in steps.items():
            started = clock()
            step()
            if turn >= unmeasured:
                times[name].append(clock() - started)
    return {name: statistics.median(each) for name, each in times.items()}


def _keep_freed_memory() -> None:
    """Let malloc keep what is freed, for every step alike: page faults are no part of a step."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-1, 2**31 - 1)
        libc.mallopt(-3, 2**30)


def _peak_mib(name: str) -> float:
    """Return how much the peak memory of a fresh process rises over a few steps, in MiB."""
    command = [sys.executable, __file__, "--peak", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def _print_peak(name: str) -> None:
    network = offered_network()
    plain = name == "plain"
    step = plain_step(torch.channels_last) if plain else method_step(network, name)
    if compiled.is_installed():
        importlib.import_module("numba")  # some 60 MiB once, whatever the network
    Path("/proc/self/clear_refs").write_text("5")  # the peak is from here on
    start_mib = _status_mib("VmRSS")
    for _ in range(3):
        step()
    print(_status_mib("VmHWM") - start_mib)


def _status_mib(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1024


def measure(*, quick: bool, threads: int) -> dict[str, float]:
    """Return the ratios and the plain step's time."""
    torch.set_num_threads(threads)
    _keep_freed_memory()
    network = offered_network()
    plain = {
        "plain": plain_step(torch.contiguous_format),
        "plain, channels last": plain_step(torch.channels_last),
    }
    methods = {n: method_step(network, n) for n in ("mixed", "sequential", "variational")}
    rounds = 4 if quick else 24
    clock = time.process_time if threads == 1 else time.perf_counter
    found = medians({**plain, **methods}, rounds, clock, unmeasured=1 if quick else 2)
    base = min(found[name] for name in plain)
    naive = medians({"naive": naive_step(network)}, 1 if quick else 3, clock, unmeasured=1)
    ratios = {f"{n}_ratio": found[n] / base for n in methods}
    ratios["naive_ratio"] = naive["naive"] / base
    ratios |= _adder_ratios(plain, rounds=1 if quick else 12, clock=clock)
    ratios["memory_ratio"] = _peak_mib("mixed") / _peak_mib("plain")
    return ratios | {"plain_step_s": base, "threads": threads}


def _adder_ratios(
    plain: dict[str, Step], rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Return the ratios with adder among the candidates, beside plain steps of the same rounds."""
    network = offered_network(f"{OPERATORS}|adder", "8|4")
    steps = {
        "adder_mixed_ratio": method_step(network, "mixed"),
        "adder_sampled_ratio": method_step(network, "variational"),
    }
    found = medians({**plain, **steps}, rounds, clock, unmeasured=1)
    base = min(found[name] for name in plain)
    return {name: found[name] / base for name in steps}


def main() -> None:
    """Print the ratios beside their limits."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--threads", type=int, default=2, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        _print_peak(arguments.peak)
        return
    figures = measure(quick=arguments.quick, threads=arguments.threads)
    print(f"plain step {figures['plain_step_s'] * 1e3:.0f} ms on {arguments.threads} threads")
    for name in (*LIMITS, "naive"):
        limit = f"   limit {LIMITS[name]}" if name in LIMITS else ""
        print(f"{name:14} {figures[f'{name}_ratio']:6.2f}{limit}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
