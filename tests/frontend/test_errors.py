# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a user's file or model is one error with the user's own line."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from enos_compiler.errors import EnosError, FrontendError, UsageError
from enos_compiler.frontend.canonical import lower
from enos_compiler.frontend.trace import trace
from enos_compiler.frontend.user import load_user_model

HEAD = """\
import torch
from torch import nn
import torch.nn.functional as F


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)
        self.volume = nn.Conv3d(3, 4, 1)
        self.recurrent = nn.LSTM(8, 4)

    def forward(self, x):
"""
TAIL = """

def model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.zeros(2, 3, 8, 8),)
"""
LINE = HEAD.count("\n") + 1
"""Line of the first statement of forward."""


def write(folder: Path, body: str, head: str = HEAD, tail: str = TAIL) -> Path:
    path = folder / "net.py"
    path.write_text(head + textwrap.indent(textwrap.dedent(body), " " * 8) + tail)
    return path


def error_of(path: Path | str, **arguments: str) -> EnosError:
    with pytest.raises(EnosError) as raised:
        lower(trace(load_user_model(str(path), arguments)))
    return raised.value


@pytest.mark.parametrize(
    ("body", "line", "message"),
    [
        ("if x.sum() > 0:\n    return x\nreturn -x", 0, "control flow that depends on data"),
        ("n = int(x.max())\nreturn x * n", 0, "`__int__` reads the contents"),
        ("y = self.layer(x)\nreturn y * y.mean().item()", 1, "`item` reads the contents"),
        ("return x + torch.randn(1)", 0, "`randn` draws random numbers"),
        ("return F.dropout(x, 0.5)", 0, "`dropout` draws random numbers"),
        ("y = self.layer(x)\ny[:, 0] = 0\nreturn y", 1, "`__setitem__` writes into a part"),
        ("y = x.view(-1)\nx.relu_()\nreturn y", 1, "changed in place"),
        ("y = x.view(-1)\nx.relu_()\nreturn y * 2", 2, "changed in place"),
        ("return torch.fft.fft(x).real", 0, "`fft_fft` is not supported"),
        ("return self.volume(x[:, :, None])", 0, "3-D convolution is not supported"),
        ("return self.recurrent(x[:, 0])[0]", 0, "recurrent layer `lstm` is not supported"),
        ("return F.interpolate(x, scale_factor=2, mode='bilinear')", 0, "`bilinear`"),
        ("return F.adaptive_avg_pool2d(x, 3)", 0, "windows of unequal size"),
        ("return x[:, torch.tensor([0, 2])]", 0, "indexing by a tensor"),
        ("return x.double().sum(1)", 0, "conversion from float32 to float64"),
        ("return torch.arange(3.0)", None, "depends on no input"),
        ("return 'text'", None, "the model returns a str"),
        ("return self.layer(x[:, :2])", 0, "the model raises RuntimeError in module layer"),
    ],
)
def test_a_model_that_cannot_be_compiled(
    tmp_path: Path, body: str, line: int | None, message: str
) -> None:
    path = write(tmp_path, body)
    error = error_of(path)
    assert isinstance(error, FrontendError)
    assert message in error.message
    assert error.remedy
    if line is not None:
        assert error.place == f"{path}:{LINE + line}"


def test_the_module_path_is_named(tmp_path: Path) -> None:
    tail = TAIL.replace("return Net()", "return nn.Sequential(nn.Identity(), Net())")
    error = error_of(write(tmp_path, "return torch.fft.fft(x).real", tail=tail))
    assert str(error) == (
        f"{tmp_path / 'net.py'}:{LINE}: operation `fft_fft` is not supported (module 1)\n"
        "  try: write it with supported operations"
    )


def test_control_flow_on_shapes_is_no_error(tmp_path: Path) -> None:
    body = """
        assert x.dim() == 4 and isinstance(x, torch.Tensor)
        for _ in range(x.shape[1] - 1):
            if x.size(-1) % 2 == 0:
                x = F.relu(x)
        b, c, h, w = x.shape
        return self.layer(x).reshape(b, -1)[:, : len(x[0])]
    """
    network = lower(trace(load_user_model(str(write(tmp_path, body)))))
    assert network.batch_is_symbolic


def test_nan_weights_name_the_parameter(tmp_path: Path) -> None:
    tail = TAIL.replace(
        "return Net()", "n = Net(); n.layer.weight.data[0, 0, 0, 0] = torch.nan\n    return n"
    )
    error = error_of(write(tmp_path, "return self.layer(x)", tail=tail))
    assert error.place == "layer.weight"
    assert "1 of 108 elements of `layer.weight` are NaN or infinite" in error.message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("torch.zeros(2, 3, 8, 8),", "torch.zeros(2, 3, 8, 8), torch.zeros(2)"), "does not take"),
        (("torch.zeros(2, 3, 8, 8),", "torch.full((2, 3, 8, 8), float('nan')),"), "NaN"),
        (("torch.zeros(2, 3, 8, 8),", "torch.zeros(2, 3, 8, 8).double(),"), "float64"),
        (("torch.zeros(2, 3, 8, 8),", "torch.zeros(0, 3, 8, 8),"), "is empty"),
        (("torch.zeros(2, 3, 8, 8),", "torch.zeros(2, 1, 8, 8),"), "of shape (2, 1, 8, 8)"),
        (("(torch.zeros(2, 3, 8, 8),)", "5"), "returned a int"),
        (("return (torch.zeros(2, 3, 8, 8),)", "raise ValueError('no')"), "raised ValueError: no"),
        (("def example_inputs", "def other"), "no function example_inputs()"),
        (("return Net()", "return 3"), "returned a int, not a torch.nn.Module"),
        (("return Net()", "raise KeyError('w')"), "model() raised KeyError"),
        (("def model", "def network"), "there is no function model()"),
        (("def model", "def model(:"), "SyntaxError"),
    ],
)
def test_a_broken_file(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = write(tmp_path, "return self.layer(x)", tail=TAIL.replace(*change))
    error = error_of(path)
    assert isinstance(error, FrontendError)
    assert message in error.message
    assert error.remedy
    assert error.place is None or "torch/nn" not in error.place


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, "return x")
    error = error_of(tmp_path / "nett.py")
    assert error.message == "this file does not exist"
    assert str(tmp_path / "net.py") in str(error.remedy)


def test_a_missing_module_is_named() -> None:
    assert "there is no module no_such_package" in error_of("no_such_package.sub:model").message


def test_an_import_that_fails_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text("import torch\n\nimport surely_not_installed\n")
    error = error_of(path)
    assert error.place == f"{path}:3"
    assert "No module named 'surely_not_installed'" in error.message


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"widht": "4"}, UsageError, "no function takes the model argument `widht`"),
        ({"width": "four"}, UsageError, "width=four is no int"),
    ],
)
def test_model_arguments(
    tmp_path: Path, arguments: dict[str, str], kind: type[EnosError], message: str
) -> None:
    tail = TAIL.replace("def model()", "def model(width=2, scale: float = 1.0, name: str = 'a')")
    path = write(tmp_path, "return self.layer(x)", tail=tail)
    error = error_of(path, **arguments)
    assert isinstance(error, kind)
    assert message in error.message


def test_model_arguments_take_the_types_that_functions_state(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(
        "from __future__ import annotations\n"
        "from pathlib import Path\nimport torch\nfrom torch import nn\nimport helper_of_net\n"
        "SEEN = {}\n"
        "def model(width=2, weights: Path | None = None, deep: bool = False):\n"
        "    SEEN.update(width=width, weights=weights, deep=deep)\n"
        "    return helper_of_net.make(width)\n"
        "def example_inputs(width=2):\n    return torch.zeros(1, width)\n"
    )
    (tmp_path / "helper_of_net.py").write_text(
        "from torch import nn\ndef make(width):\n    return nn.Linear(width, 3)\n"
    )
    user = load_user_model(f"{path}:model", {"width": "5", "weights": "a/b", "deep": "true"})
    network = lower(trace(user))
    source: Any = user.source
    assert {"width": 5, "weights": Path("a/b"), "deep": True} == source.module.SEEN
    assert user.name == "net"
    assert network.values[network.inputs[0]].shape == (1, 5)
    assert user.data() is None
