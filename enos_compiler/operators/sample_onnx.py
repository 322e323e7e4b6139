# SPDX-License-Identifier: Apache-2.0
"""A sampler in ONNX: a Scan over the steps of its chains, in exact double arithmetic.

Every number is an integer below 2**53, or one times a power of two, so double sums are exact in any
order. Shapes: rows N (1 for a constant mixture), chains S, components K, dimensions D.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from enos_compiler.ir.formats import QuantizedLayer
from enos_compiler.ir.network import Layer
from enos_compiler.operators.onnx_body import FunctionBody
from enos_compiler.sampling.chain import conversion_shift, exponential_table, slice_weights
from enos_compiler.sampling.codes import MEAN_FRACTION_BITS
from enos_compiler.sampling.form import SamplerForm
from enos_compiler.semantics.base import OnnxFunction

if TYPE_CHECKING:
    from onnx import NodeProto

_STEPS, _UNIFORMS = "steps", "uniforms"
"""The random numbers; in the file `<layer>/steps` and `<layer>/uniforms`."""
_FINE = 2.0**MEAN_FRACTION_BITS


def sampler_function(layer: Layer, quantized: QuantizedLayer) -> OnnxFunction:
    """Return the local function of a sampling layer; its random numbers are graph inputs."""
    from enos_compiler.operators.sample import form_of

    form = form_of(quantized)
    body = FunctionBody()
    held = _constant(body, quantized) if layer.op == "sample" else _given(body, layer, quantized)
    writer = _Writer(body, layer, quantized, form, held)
    states = writer.scan()
    total = _kept(body, layer, quantized, form, states)
    codes = ("codes",) if layer.op == "sample" else ("logits", "means", "log_deviations")
    if layer.op == "sample":
        rows = body.node("Slice", body.node("Shape", "codes"), *_ints(body, [0], [1], "first"))
        tail = body.tensor("point_shape", np.array([layer.shape.n, layer.shape.m], np.int64))
        total = body.node("Expand", total, body.node("Concat", rows, tail, axis=0))
    body.cast(total, output="total")
    return OnnxFunction(
        name="Sample" if layer.op == "sample" else "SampleGiven",
        nodes=tuple(body.nodes),
        inputs=(*codes, *body.tensors),
        output="total",
        tensors=body.tensors,
        defaults=frozenset({_STEPS, _UNIFORMS}),
    )


@dataclass(frozen=True, slots=True)
class _Held:
    """Names of a mixture's integers as doubles: (N, K, D, D), (N, K, D) and (N, K)."""

    precision: str
    means: str
    constants: str
    scale: NDArray[np.int64]
    """(K,) or (1,)."""


def _constant(body: FunctionBody, quantized: QuantizedLayer) -> _Held:
    tensors = quantized.tensors
    names = [
        body.tensor(name, tensors[name][None].astype(np.float64))
        for name in ("precision", "means", "constants")
    ]
    return _Held(names[0], names[1], names[2], tensors["scale"])


def _given(body: FunctionBody, layer: Layer, quantized: QuantizedLayer) -> _Held:
    """Look the mixture of every row up in the tables of the head's codes."""
    from onnx import TensorProto

    k, d = layer.shape.r, layer.shape.m
    shape = body.tensor("head_shape", np.array([-1, k, d], np.int64))
    index = {
        name: body.node("Cast", name, to=TensorProto.INT32)
        for name in ("logits", "means", "log_deviations")
    }
    for name in ("means", "log_deviations"):
        index[name] = body.node("Reshape", index[name], shape)

    def look_up(table: str, codes: str) -> str:
        values = quantized.tensors[table].astype(np.float64)
        return body.node("Gather", body.tensor(f"{table}_table", values), index[codes])

    entries = look_up("precision", "log_deviations")
    last = body.tensor("last_axis", np.array([-1], np.int64))
    eye = body.tensor("eye", np.eye(d))
    precision = body.node("Mul", body.node("Unsqueeze", entries, last), eye)
    deviations = body.node("ReduceSum", look_up("deviation", "log_deviations"), last, keepdims=0)
    constants = body.node("Add", look_up("logit", "logits"), deviations)
    highest = body.node("ReduceMax", constants, last, keepdims=1)
    return _Held(
        precision,
        look_up("mean", "means"),
        body.node("Sub", constants, highest),
        quantized.tensors["scale"],
    )


def _ints(body: FunctionBody, start: list[int], stop: list[int], name: str) -> tuple[str, str]:
    return (
        body.tensor(f"{name}_from", np.array(start, np.int64)),
        body.tensor(f"{name}_to", np.array(stop, np.int64)),
    )


def _kept(
    body: FunctionBody, layer: Layer, quantized: QuantizedLayer, form: SamplerForm, states: str
) -> str:
    """Return the kept points (N, count, D) of all states (T, N, S, D), the origin added."""
    steps = len(quantized.tensors["uniforms"])
    kept = np.arange(form.burn_in + form.thinning - 1, steps, form.thinning)
    chosen = body.node("Gather", states, body.tensor("kept", kept.astype(np.int64)), axis=0)
    rows_first = body.node("Transpose", chosen, perm=[1, 0, 2, 3])
    d = layer.shape.m
    shape = body.tensor("sample_shape", np.array([0, -1, d], np.int64))
    flat = body.node("Reshape", rows_first, shape)
    bounds = _ints(body, [0], [layer.shape.n], "count")
    points = body.node("Slice", flat, *bounds, body.tensor("axis", np.array([1], np.int64)))
    return body.node("Add", points, body.tensor("origin", quantized.bias.astype(np.float64)))


@dataclass(slots=True)
class _Steps:
    """Nodes of the Scan's body; names are apart from those around it."""

    nodes: list[NodeProto] = field(default_factory=list)

    def node(self, op: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node of one output and return the output's name."""
        from onnx import helper

        result = output or f"step_{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [result], name=result, **attributes))
        return result


class _Writer:
    """Writes the chains of one layer."""

    def __init__(
        self,
        body: FunctionBody,
        layer: Layer,
        quantized: QuantizedLayer,
        form: SamplerForm,
        held: _Held,
    ) -> None:
        self.body, self.form, self.held = body, form, held
        self.quantized = quantized
        self.k, self.d = layer.shape.r, layer.shape.m
        self.conditioned = layer.op != "sample"
        self.last = body.tensor("axis_last", np.array([-1], np.int64))
        self.chain_axis = body.tensor("axis_chain", np.array([1], np.int64))
        self.before_last = body.tensor("axis_before_last", np.array([-2], np.int64))
        self.precision = body.node("Unsqueeze", held.precision, self.chain_axis)
        self.means = body.node("Unsqueeze", held.means, self.chain_axis)
        self.constants = body.node("Unsqueeze", held.constants, self.chain_axis)
        self.steps = _Steps()

    # The mixture at a state; `out` is the function's body or the Scan's

    def recompute(self, out: FunctionBody | _Steps, state: str) -> tuple[str, str]:
        """Return gradient (N, S, K, D) and quadratic form (N, S, K) of states (N, S, D)."""
        fine = out.node("Mul", state, self._number("fine", _FINE))
        apart = out.node("Sub", out.node("Unsqueeze", fine, self.before_last), self.means)
        column = out.node("Unsqueeze", apart, self.last)
        gradient = out.node("Squeeze", out.node("MatMul", self.precision, column), self.last)
        products = out.node("Mul", gradient, apart)
        return gradient, out.node("ReduceSum", products, self.last, keepdims=0)

    def logs(self, out: FunctionBody | _Steps, quadratic: str) -> str:
        """Return log2 densities (N, S, K) in units of the fraction, saturated below."""
        form = self.form
        shift = self.held.scale - 2 * MEAN_FRACTION_BITS + form.log_fraction_bits
        factor = self._number("energy_unit", np.exp2(shift.astype(np.float64)))
        # exact where the shift is to the right: a half is added, and the floor taken
        half = self._number("energy_half", np.where(shift < 0, 0.5, 0.0))
        energy = out.node("Floor", out.node("Add", out.node("Mul", quadratic, factor), half))
        least = self._number("least_log", -(2.0 ** (form.log_bits - 1)))
        return out.node("Max", out.node("Sub", self.constants, energy), least)

    def _number(self, name: str, value: Any) -> str:
        """Return a tensor of the call, made once."""
        if name not in self.body.tensors:
            self.body.tensor(name, np.asarray(value, np.float64))
        return name

    # The Scan

    def scan(self) -> str:
        """Return all states, (T, N, S, D)."""
        from onnx import TensorProto, helper

        body, out = self.body, self.steps
        state = self._start()
        gradient, quadratic = self.recompute(body, state)
        logs = self.logs(body, quadratic)
        refreshed = self._refreshed()
        drawn = self.quantized.tensors
        steps = body.tensor(_STEPS, drawn["steps"].astype(np.int32))
        uniforms = body.tensor(_UNIFORMS, drawn["uniforms"].astype(np.int32))
        self._write_step()
        double = TensorProto.DOUBLE
        carried = ["state_in", "gradient_in", "quadratic_in", "logs_in"]
        inputs = [helper.make_tensor_value_info(name, double, None) for name in carried]
        inputs += [
            helper.make_tensor_value_info("refresh_now", TensorProto.BOOL, []),
            helper.make_tensor_value_info("step_now", TensorProto.INT32, None),
            helper.make_tensor_value_info("uniform_now", TensorProto.INT32, None),
        ]
        results = ["state_out", "gradient_out", "quadratic_out", "logs_out", "state_seen"]
        outputs = [helper.make_tensor_value_info(name, double, None) for name in results]
        graph = helper.make_graph(out.nodes, "step", inputs, outputs)
        node = helper.make_node(
            "Scan",
            [state, gradient, quadratic, logs, refreshed, steps, uniforms],
            ["state_end", "gradient_end", "quadratic_end", "logs_end", "states"],
            name="chains",
            body=graph,
            num_scan_inputs=3,
        )
        body.nodes.append(node)
        return "states"

    def _start(self) -> str:
        """Return the chains' starts, the components' means in turn, (N, S, D)."""
        body = self.body
        chains = np.arange(self.form.chains) % self.k
        scaled = body.node("Mul", self.held.means, self._number("coarse", 1 / _FINE))
        middle = body.node("Round", scaled)
        return body.node("Gather", middle, body.tensor("first_component", chains), axis=1)

    def _refreshed(self) -> str:
        """Return which steps begin with an exact recomputation, (T,)."""
        now = np.arange(len(self.quantized.tensors["uniforms"]))
        every = self.form.refresh
        flags = (now > 0) & (now % every == 0) if every else np.zeros(len(now), bool)
        return self.body.tensor("refreshed", flags)

    def _write_step(self) -> None:
        from onnx import TensorProto

        out = self.steps
        exact_gradient, exact_quadratic = self.recompute(out, "state_in")
        gradient = out.node("Where", "refresh_now", exact_gradient, "gradient_in")
        quadratic = out.node("Where", "refresh_now", exact_quadratic, "quadratic_in")
        logs = out.node("Where", "refresh_now", self.logs(out, exact_quadratic), "logs_in")
        step = out.node("Cast", "step_now", to=TensorProto.DOUBLE)
        product = self._product(step)
        moved = out.node("Add", "state_in", step)
        fine = out.node("Mul", product, self._number("fine", _FINE))
        twice = out.node("Add", out.node("Add", gradient, gradient), fine)
        along = out.node("Mul", twice, out.node("Unsqueeze", step, self.before_last))
        along = out.node("ReduceSum", along, self.last, keepdims=0)
        proposed = out.node("Add", quadratic, out.node("Mul", along, self._number("fine", _FINE)))
        new_logs = self.logs(out, proposed)
        uniform = out.node("Cast", "uniform_now", to=TensorProto.DOUBLE)
        taken = out.node("And", self._accepts(logs, new_logs, uniform), self._inside(moved))
        wide = out.node("Unsqueeze", taken, self.last)
        wider = out.node("Unsqueeze", wide, self.last)
        state = out.node("Where", wide, moved, "state_in", output="state_out")
        out.node("Identity", state, output="state_seen")
        changed = out.node("Add", gradient, fine)
        out.node("Where", wider, changed, gradient, output="gradient_out")
        out.node("Where", wide, proposed, quadratic, output="quadratic_out")
        out.node("Where", wide, new_logs, logs, output="logs_out")

    def _product(self, step: str) -> str:
        """Return W_k d of steps (S, D) as the converters give it, (N or 1, S, K, D)."""
        out, form = self.steps, self.form
        column = out.node("Unsqueeze", out.node("Unsqueeze", step, self.before_last), self.last)
        shift = conversion_shift(form, self.d)
        if shift == 0:
            return out.node("Squeeze", out.node("MatMul", self.precision, column), self.last)
        limit = 2 ** (form.adc_bits - 1)
        total = ""
        for group, (digits, place) in enumerate(self._groups()):
            sums = out.node("Squeeze", out.node("MatMul", digits, column), self.last)
            codes = out.node("Round", out.node("Mul", sums, self._number("adc", 2.0**-shift)))
            low = self._number("adc_low", -limit)
            codes = out.node("Max", codes, low)
            codes = out.node("Min", codes, self._number("adc_high", limit - 1))
            value = out.node("Mul", codes, self._number(f"place_{group}", place * 2.0**shift))
            total = out.node("Add", total, value) if total else value
        return total

    def _groups(self) -> list[tuple[str, float]]:
        """Return the digits (N, 1, K, D, D) of each group of merged columns, and its place."""
        form, body = self.form, self.body
        if not self.conditioned:
            digits, places = slice_weights(self.quantized.tensors["precision"], form)
            return [
                (
                    body.tensor(f"digits_{g}", digits[None, None, ..., g].astype(np.float64)),
                    float(p),
                )
                for g, p in enumerate(places)
            ]
        found = []
        rest = self.precision
        groups = -(-form.weight_bits // form.bits_per_conversion)
        base = self._number("digit_base", 2.0**form.bits_per_conversion)
        for group in range(groups - 1):
            above = body.node("Floor", body.node("Div", rest, base))
            found.append(
                (
                    body.node("Sub", rest, body.node("Mul", above, base)),
                    2.0 ** (group * form.bits_per_conversion),
                )
            )
            rest = above
        return [*found, (rest, 2.0 ** ((groups - 1) * form.bits_per_conversion))]

    def _accepts(self, old: str, new: str, uniform: str) -> str:
        """Return which chains take their step, (N, S)."""
        out, form = self.steps, self.form
        highest = out.node(
            "Max",
            out.node("ReduceMax", old, self.last, keepdims=1),
            out.node("ReduceMax", new, self.last, keepdims=1),
        )
        old_mass, new_mass = (self._mass(out.node("Sub", highest, logs)) for logs in (old, new))
        one = self._number("one", 1.0)
        twice = out.node("Add", out.node("Add", uniform, uniform), one)
        scale = self._number("uniform_scale", 2.0 ** (form.uniform_bits + 1))
        return out.node("Less", out.node("Mul", twice, old_mass), out.node("Mul", new_mass, scale))

    def _mass(self, below: str) -> str:
        """Return the sum over components of the table's 2**-t, (N, S)."""
        from onnx import TensorProto

        out, form = self.steps, self.form
        unit = self._number("log_unit", 2.0**form.log_fraction_bits)
        part = self._number("log_part", 2.0**-form.log_fraction_bits)
        whole = out.node("Floor", out.node("Mul", below, part))
        fraction = out.node("Sub", below, out.node("Mul", whole, unit))
        index = out.node("Cast", fraction, to=TensorProto.INT32)
        table = self._number("exponentials", exponential_table(form))
        entry = out.node("Gather", table, index)
        # powers of two from a table: Pow need not be exact; beyond 63 nothing is left
        most = out.node("Min", whole, self._number("most", 63))
        shift = out.node("Cast", most, to=TensorProto.INT32)
        halves = self._number("halves", np.exp2(-np.arange(64.0)))
        shifted = out.node("Floor", out.node("Mul", entry, out.node("Gather", halves, shift)))
        return out.node("ReduceSum", shifted, self.last, keepdims=0)

    def _inside(self, state: str) -> str:
        """Return which states have words, (N, S)."""
        from onnx import TensorProto

        out = self.steps
        half = 2 ** (self.form.state_bits - 1)
        held = out.node(
            "And",
            out.node("GreaterOrEqual", state, self._number("state_low", -half)),
            out.node("Less", state, self._number("state_high", half)),
        )
        # all of the coordinates: the least of them as a number
        counted = out.node("Cast", held, to=TensorProto.DOUBLE)
        least = out.node("ReduceMin", counted, self.last, keepdims=0)
        return out.node("Greater", least, self._number("nothing", 0.0))
