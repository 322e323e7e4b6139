# SPDX-License-Identifier: Apache-2.0
"""Two processes, each on half of a batch, compute what one process does on the whole."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import torch

SUPPORT = Path(__file__).parents[1] / "support"

SCRIPT = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
import torch
from torch.utils.data import TensorDataset
from safetensors.torch import save_file
from small_network import build, chip, digits, offer
from enos_compiler.assign.budget import Budget
from enos_compiler.frontend.data import Data
from enos_compiler.search.parallel import is_first
from enos_compiler.search.run import SearchSettings, search

images, labels = digits()
data = Data(
    train=TensorDataset(images[:128], labels[:128]),
    validation=TensorDataset(images[128:192], labels[128:192]),
    batch_size=32,
)
settings = SearchSettings(
    epochs=2, pretrain=1, budget=Budget.parse("floor+0.5"), learning_rate=1e-3,
    architecture_rate=0.05, warm_up=0.1, seed=0, folder=None, say=lambda _: None,
    method="METHOD",
)
torch.set_num_threads(1)
import enos_compiler.search.run as run
run.LEAST_HALVED = 10**6  # all rows tell the gradient, in both
def noisy(architecture, *_rest):
    classes = len(architecture.spaces["c2"].classes)
    architecture.noise = {"c2": torch.linspace(0, 0.2, classes)}
run._measure = noisy
network = offer(build(width=4), ("mac", "shift", "mf"), (8,))
found, section = search(network, data, chip(), settings)
if is_first():
    tensors = {n: t.clone() for n, t in found.graph.state_dict().items()}
    tensors["scores"] = torch.tensor([s for layer in found.layers.values() for s in layer.scores])
    tensors["losses"] = torch.tensor([e["loss"] for e in section["epochs"]])
    tensors["ranges"] = torch.tensor([list(v.range) for v in found.values.values() if v.range])
    save_file(tensors, sys.argv[1])
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Gradients, statistics, noise, ranges and probabilities agree within float tolerance."""
    from safetensors.torch import load_file

    script = tmp_path / "train.py"
    script.write_text(SCRIPT.replace("METHOD", "single"))
    alone = [sys.executable, str(script), str(tmp_path / "one.safetensors"), str(SUPPORT)]
    together = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--master-port", str(_free_port()), str(script)),
        *(str(tmp_path / "two.safetensors"), str(SUPPORT)),
    ]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command in (alone, together)
    ]
    outputs = [process.communicate(timeout=400)[0] for process in running]
    for process, output in zip(running, outputs, strict=True):
        assert process.returncode == 0, output
    one, two = (load_file(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.allclose(two[name], tensor, rtol=2e-3, atol=2e-3), name
    assert one["losses"][0] != one["losses"][1]
