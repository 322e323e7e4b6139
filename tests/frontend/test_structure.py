# SPDX-License-Identifier: Apache-2.0
"""What canonicalize finds: shared weights, batches, first and last layers, fused chains."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from enos_compiler.errors import FrontendError
from enos_compiler.frontend.calibrate import calibrate, example_batches, image_batches
from enos_compiler.frontend.canonical import lower
from enos_compiler.frontend.data import Data
from enos_compiler.frontend.trace import trace
from enos_compiler.ir.network import Network
from enos_compiler.ir.shape import LayerShape


def network_of(model: nn.Module, *inputs: Tensor, batch: int = 1) -> Network:
    torch.manual_seed(0)
    return lower(trace(model.eval(), inputs, batch))


class Twice(nn.Module):
    """One convolution called twice, then a tied pair of linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(F.relu(self.conv(x)))).mean((2, 3))
        y: Tensor = self.second(F.relu(self.first(x)))
        return y


def test_a_module_called_twice_is_two_layers_of_one_weight_key() -> None:
    network = network_of(Twice(), torch.randn(2, 3, 6, 6))
    assert list(network.layers) == ["conv", "conv_1", "first", "second"]
    keys = [layer.weight_key for layer in network.layers.values()]
    assert keys == ["conv.weight", "conv.weight", "first.weight", "first.weight"]
    marked = [layer.first_or_last for layer in network.layers.values()]
    assert marked == [True, False, False, True]


def test_the_users_model_is_left_as_it_was() -> None:
    model = Twice()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    network = network_of(model.train(), torch.randn(2, 3, 6, 6))
    with torch.no_grad():
        network.tensor("conv.weight").zero_()
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class Grid(nn.Module):
    """Reshapes with a batch written into the code."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch
        self.layer = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x.view(self.batch, 8))
        return y


class Mixing(nn.Module):
    """Averages over what leads: it is no batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True)


def test_a_written_batch_is_kept_with_a_note() -> None:
    network = network_of(Grid(4), torch.randn(4, 8))
    assert (network.batch, network.batch_is_symbolic) == (4, False)
    assert "kept the example inputs' batch of 4" in network.sections["canonicalize"]["note"]
    assert network.layers["layer"].shape.n == 4


def test_rows_that_read_each_other_forbid_another_batch() -> None:
    network = network_of(nn.Sequential(nn.Linear(8, 8), Mixing()), torch.randn(3, 8))
    assert (network.batch, network.batch_is_symbolic) == (3, False)
    assert "rows of output 0 change" in network.sections["canonicalize"]["note"]


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_wanted_batch_sets_the_shapes(batch: int) -> None:
    network = network_of(nn.Conv2d(3, 4, 3), torch.randn(3, 3, 6, 6), batch=batch)
    (layer,) = network.layers.values()
    assert layer.shape == LayerShape(n=batch, m=4, c=3, p=4, q=4, r=3, s=3)
    assert network.values[layer.output].shape == (batch, 4, 4, 4)


def test_squeeze_keeps_the_batch_of_one() -> None:
    """Recorded at two, compiled at one: squeeze() drops no batch axis."""

    class Squeezing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.squeeze()

    network = network_of(Squeezing(), torch.randn(4, 3, 1, 1))
    assert network.values[network.outputs[0]].shape == (1, 3)


def test_layer_shapes_of_other_kinds() -> None:
    class Kinds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.series = nn.Conv1d(4, 8, 3, stride=2, padding=1, dilation=2, groups=2)
            self.rows = nn.Linear(6, 7)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.rows(self.series(x))
            return y @ y.transpose(1, 2)

    network = network_of(Kinds(), torch.randn(2, 4, 13), batch=2)
    series, rows, product = network.layers.values()
    assert (
        series.shape
        == LayerShape(
            g=2, n=2, m=4, c=2, p=6, r=3, stride=(2, 1), dilation=(2, 1), padding=(1, 0, 1, 0)
        )
        if series.shape.p == 6
        else series.shape.p == 5
    )
    assert rows.shape.n == 2 * 8
    assert product.shape == LayerShape(g=2, n=8, c=7, m=8, activation_product=True)
    assert product.weight is None


def test_norms_and_clamps_move_to_what_absorbs_them() -> None:
    """Behind a transposed convolution, a pool or a reshape they still cost nothing."""
    model = nn.Sequential(
        nn.ConvTranspose2d(3, 4, 2, stride=2, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.MaxPool2d(2),
        nn.ReLU6(),
        nn.Conv2d(4, 2, 1),
    )
    nn.init.uniform_(model.get_buffer("1.running_mean"))
    x = torch.randn(2, 3, 4, 4)
    network = network_of(model, x)
    assert [v.op for v in network.vectors.values()] == ["interleave", "max_pool"]
    layers = list(network.layers.values())
    assert [layer.name for layer in layers[:2]] == [
        "convtranspose2d_0_phase0_0",
        "convtranspose2d_0_phase0_1",
    ]
    assert all(layer.norm and layer.activation for layer in layers[:4])
    assert layers[4].activation is not None
    with torch.no_grad():
        assert torch.allclose(network.graph(x)[0], model(x), atol=1e-5)


def test_a_value_with_two_readers_is_not_fused_away() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layer(x)
            return F.relu(y) + y

    network = network_of(Both(), torch.randn(1, 3, 4, 4))
    layer = network.layers["layer"]
    assert (layer.activation, layer.output) == (None, "layer")


def test_a_clamp_stays_behind_a_pool_whose_input_has_other_readers() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            return F.relu(F.max_pool2d(y, 2)) + F.avg_pool2d(y, 2)

    model, x = Pooled(), torch.randn(2, 3, 4, 4)
    network = network_of(model, x)
    with torch.no_grad():
        assert torch.allclose(network.graph(x)[0], model(x), atol=1e-6)


def test_many_example_inputs_are_not_all_run_to_find_the_graph() -> None:
    rows: list[int] = []

    class Counting(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            rows.append(x.shape[0])
            return super().forward(x)

    model = Counting(3, 2)
    network = network_of(model, torch.randn(500, 3))
    assert network.batch_is_symbolic
    assert max(rows) == 4


def test_a_written_batch_beyond_a_few_rows_is_kept_too() -> None:
    network = network_of(Grid(9), torch.randn(9, 8))
    assert (network.batch, network.batch_is_symbolic) == (9, False)


def test_several_inputs_and_outputs_keep_their_order() -> None:
    class Two(nn.Module):
        def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
            return {"sum": left + right, "both": torch.cat([left, right], 1)}

    x, y = torch.randn(2, 3), torch.randn(2, 4)
    network = network_of(Two(), x, torch.randn(2, 3))
    assert network.inputs == ("left", "right")
    total, both = network.graph(x, y[:, :3])
    assert torch.equal(total, x + y[:, :3])
    assert torch.equal(both, torch.cat([x, y[:, :3]], 1))


def test_calibration_sees_every_image_and_names_what_overflows() -> None:
    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) ** 2

    model = nn.Sequential(nn.Identity(), Square())
    images = [(torch.full((1, 2, 2), float(i)), i % 2) for i in range(10)]
    data = Data(train=lambda: images)
    network = network_of(model, torch.zeros(1, 1, 2, 2))
    ranged = calibrate(network, image_batches(data, 6, batch_size=4))
    assert ranged.values[ranged.inputs[0]].range == (0.0, 5.0)
    broken = [(torch.full((1, 2, 2), 3e38), 0)]
    with pytest.raises(
        FrontendError, match=r"value `square_1_pow` \(module 1\) holds infinity"
    ) as raised:
        calibrate(network, image_batches(Data(train=broken), 1))
    assert raised.value.remedy


def test_example_inputs_calibrate_at_their_full_batch_whatever_the_compiled_one() -> None:
    x = torch.arange(12.0).view(4, 3)
    network = network_of(nn.Linear(3, 2), x)
    assert calibrate(network, example_batches(network)).values["input_1"].range == (0.0, 11.0)
    fixed = network_of(Grid(4), torch.arange(32.0).view(4, 8))
    assert calibrate(fixed, example_batches(fixed)).values["x"].range == (0.0, 31.0)


def test_a_registered_vector_operation_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's operation enters by its entry point and stays one node."""
    from enos_compiler import plugins
    from enos_compiler.frontend import canonical
    from enos_compiler.ir import ops

    @ops.recordable
    def tilt(x: Tensor, *, slope: float) -> Tensor:
        return torch.where(x > 0, x, slope * x)

    class Tilt:
        function = staticmethod(tilt)
        is_float = False

    class Tilting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return tilt(x.relu(), slope=0.5)

    monkeypatch.setattr(plugins, "names", lambda group: ("tilt",) * (group == "vector_ops"))
    monkeypatch.setattr(plugins, "load", lambda *_: Tilt)
    canonical._registered.cache_clear()
    network = network_of(Tilting(), torch.randn(2, 3))
    canonical._registered.cache_clear()
    assert [v.op for v in network.vectors.values()] == ["elementwise", "tilt"]
    assert network.vectors[network.order[-1]].attributes == {"slope": 0.5}


def test_scalars_in_a_row_are_one_table() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 1 - (2 * x + 3) / 4

    network = network_of(Scaled(), torch.randn(2, 3))
    (vector,) = network.vectors.values()
    assert vector.attributes["parameters"] == pytest.approx((-0.5, 0.25))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.LazyLinear(2), "`weight` has no shape yet"),
        (nn.Linear(3, 2).half(), "`weight` is torch.float16"),
        (nn.Linear(3, 2, device="meta"), "`weight` is on device meta"),
        (
            torch.jit.trace(nn.Linear(3, 2), torch.zeros(1, 3)),  # type: ignore[no-untyped-call]
            "the model is TorchScript",
        ),
    ],
)
def test_modules_that_are_no_plain_float32_modules(model: nn.Module, message: str) -> None:
    with pytest.raises(FrontendError, match=message):
        trace(model, (torch.zeros(1, 3),))
