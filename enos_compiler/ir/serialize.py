# SPDX-License-Identifier: Apache-2.0
"""Save and load a network: `network.json` + `weights.safetensors`, never a pickle.

The fx graph is stored as nodes whose targets are names from an allow list: the canonical
operations and registered vector operations. Loading runs no code of the user's.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from enos_compiler import plugins
from enos_compiler.errors import FormatError
from enos_compiler.ir import codec
from enos_compiler.ir.network import Network
from enos_compiler.ir.ops import FUNCTIONS, op_name

if TYPE_CHECKING:
    from torch import Tensor, fx, nn

SCHEMA = "enos-network/1"
_TORCH_FIELDS = ("graph", "example_inputs")
_AGAIN = "save the network again"


def save_network(network: Network, folder: Path) -> None:
    """Write the network into `folder`, which must exist; see `outputs` for atomic replacement."""
    from safetensors.torch import save

    arrays: codec.Arrays = {}
    body = {
        f.name: codec.encode(getattr(network, f.name), arrays, f.name)
        for f in fields(network)
        if f.name not in _TORCH_FIELDS
    }
    tensors, aliases = _graph_tensors(network.graph)
    tensors |= {f"example/{i}": t.clone() for i, t in enumerate(network.example_inputs)}
    tensors |= {f"array/{key}": _from_numpy(array) for key, array in arrays.items()}
    blob = save(tensors)
    content = {
        "weights_sha256": hashlib.sha256(blob).hexdigest(),
        "graph": _encode_graph(network.graph),
        "aliases": aliases,
        "trained": _trained(network.graph),
        "network": body,
    }
    document = {"schema": SCHEMA, "seal_sha256": codec.seal(content), **content}
    (folder / "weights.safetensors").write_bytes(blob)
    (folder / "network.json").write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


def load_network(folder: Path) -> Network:
    """Read a saved network.

    Raises:
        FormatError: a file is missing or damaged, of another schema, was changed after it was
            written, or the two do not belong together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = folder / "network.json"
    document, place = _read_document(path), str(path)
    content = {k: v for k, v in document.items() if k not in ("schema", "seal_sha256")}
    blob = _read_weights(folder / "weights.safetensors", document.get("weights_sha256"))
    try:
        tensors = load(blob)
        graph = _decode_graph(document["graph"], document["aliases"], tensors, place)
        for name in document.get("trained", ()):
            graph.get_parameter(name).requires_grad_()
        network = _decode_network(document["network"], graph, tensors, place)
    except (KeyError, TypeError, AttributeError, ValueError, SafetensorError) as error:
        raise FormatError(
            f"is not a saved network: {error!r:.200}", place=place, remedy=_AGAIN
        ) from error
    if codec.seal(content) != document.get("seal_sha256"):
        raise FormatError("was changed after it was written", place=place, remedy=_AGAIN)
    return network


def _decode_network(
    body: dict[str, Any], graph: fx.GraphModule, tensors: dict[str, Tensor], place: str
) -> Network:
    arrays = {
        k.removeprefix("array/"): t.numpy() for k, t in tensors.items() if k.startswith("array/")
    }
    hints = {n: h for n, h in _network_hints().items() if n not in _TORCH_FIELDS}
    if set(body) != set(hints):
        raise FormatError(f"fields differ: {sorted(set(body) ^ set(hints))}", place=place)
    values = {n: codec.decode(body[n], hint, arrays, n) for n, hint in hints.items()}
    examples = sorted((k for k in tensors if k.startswith("example/")), key=lambda k: int(k[8:]))
    return Network(graph=graph, example_inputs=tuple(tensors[k] for k in examples), **values)


def _read_weights(path: Path, expected: Any) -> bytes:
    try:
        blob = path.read_bytes()
    except OSError as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise FormatError(what, place=str(path), remedy=_AGAIN) from None
    if hashlib.sha256(blob).hexdigest() != expected:
        raise FormatError(
            "does not belong to the network.json beside it, or is damaged",
            place=str(path),
            remedy=_AGAIN,
        )
    return blob


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        raise FormatError(
            "is missing", place=str(path), remedy="name a folder written with --save-temps"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"cannot be read: {error}", place=str(path), remedy=_AGAIN) from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise FormatError(f"has schema {schema!r}; this version reads {SCHEMA}", place=str(path))
    return document  # type: ignore[no-any-return]


def _network_hints() -> dict[str, Any]:
    import torch
    from torch import fx

    return get_type_hints(Network, localns={"fx": fx, "Tensor": torch.Tensor})


def _from_numpy(array: Any) -> Tensor:
    import numpy as np
    import torch

    return torch.from_numpy(np.array(array))


def _graph_tensors(graph: fx.GraphModule) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors by `graph/<name>` and, for names that share one, the name that holds it."""
    import torch

    held: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    seen: dict[int, str] = {}
    named = [
        *graph.named_parameters(remove_duplicate=False),
        *graph.named_buffers(remove_duplicate=False),
    ]
    for name, tensor in named:
        if id(tensor) in seen:
            aliases[name] = seen[id(tensor)]
            continue
        seen[id(tensor)] = name
        held[f"graph/{name}"] = tensor.detach().clone(memory_format=torch.contiguous_format)
    return held, aliases


def _trained(graph: fx.GraphModule) -> list[str]:
    """Return the parameters that a training changes; statistics and frozen ones stay."""
    named = graph.named_parameters(remove_duplicate=False)
    return [name for name, parameter in named if parameter.requires_grad]


def _function_name(function: Any) -> str:
    """Return the name under which a function of the graph is stored."""
    name = op_name(function)
    if name is not None:
        return name
    for plugin in plugins.names("vector_ops"):
        if plugins.load("vector_ops", plugin).function is function:
            return f"vector_ops:{plugin}"
    raise FormatError(
        f"{function!r} is no canonical operation", remedy="run canonicalize before saving"
    )


def _function(name: str, place: str) -> Any:
    """Return the function stored under a name: canonical or registered, nothing else."""
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    plugin = name.removeprefix("vector_ops:")
    if plugin != name and plugin in plugins.names("vector_ops"):
        return plugins.load("vector_ops", plugin).function
    raise FormatError(f"operation {name!r} is neither canonical nor registered", place=place)


def _encode_graph(graph: fx.GraphModule) -> list[dict[str, Any]]:
    return [
        {
            "name": node.name,
            "op": node.op,
            "target": _function_name(node.target)
            if node.op == "call_function"
            else str(node.target),
            "args": [_encode_argument(a) for a in node.args],
            "kwargs": {k: _encode_argument(v) for k, v in node.kwargs.items()},
        }
        for node in graph.graph.nodes
    ]


def _encode_argument(argument: Any) -> Any:
    from torch import fx

    if isinstance(argument, fx.Node):
        return {"node": argument.name}
    if isinstance(argument, (tuple, list)):
        return [_encode_argument(a) for a in argument]
    return argument


def _decode_graph(
    rows: list[dict[str, Any]], aliases: dict[str, str], tensors: dict[str, Tensor], place: str
) -> fx.GraphModule:
    import torch
    from torch import fx

    root = torch.nn.Module()
    graph = fx.Graph()
    made: dict[str, fx.Node] = {}

    def argument(data: Any) -> Any:
        if isinstance(data, dict):
            return made[data["node"]]
        return tuple(argument(d) for d in data) if isinstance(data, list) else data

    for row in rows:
        if row["op"] not in ("placeholder", "get_attr", "call_function", "output"):
            raise FormatError(f"graph node kind {row['op']!r} is not allowed", place=place)
        target: Any = row["target"]
        if row["op"] == "get_attr":
            holder = aliases.get(target, target)
            _place_tensor(root, target, tensors[f"graph/{holder}"])
        elif row["op"] == "call_function":
            target = _function(target, place)
        args = tuple(argument(a) for a in row["args"])
        kwargs = {k: argument(v) for k, v in row["kwargs"].items()}
        made[row["name"]] = graph.create_node(row["op"], target, args, kwargs, row["name"])
    return fx.GraphModule(root, graph)


def _place_tensor(root: nn.Module, name: str, tensor: Tensor) -> None:
    import torch

    *path, leaf = name.split(".")
    module = root
    for part in path:
        if not hasattr(module, part):
            module.add_module(part, torch.nn.Module())
        module = getattr(module, part)
    if hasattr(module, leaf):
        return
    if tensor.is_floating_point():
        module.register_parameter(leaf, torch.nn.Parameter(tensor, requires_grad=False))
    else:
        module.register_buffer(leaf, tensor)
