# SPDX-License-Identifier: Apache-2.0
"""A digital core as the cost model sees it: storage levels, fan-outs, wires and MACs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from enos_compiler.errors import SpecError


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """The wires inside a storage level: a mesh fed at the middle of its left edge."""

    energy_per_hop_pj: float = 0.0
    """Energy of one word over one hop."""
    router_energy_pj: float = 0.0
    """Energy of one word through one router."""
    fill_latency_cycles: int = 0
    drain_latency_cycles: int = 0


@dataclass(frozen=True, slots=True)
class StorageLevel:
    """One storage level; every quantity per instance is in words of `word_bits`."""

    name: str
    instances: int = 1
    """Copies of this memory in the machine."""
    mesh_x: int = 1
    """Columns in which the instances are laid out; rows = instances / mesh_x."""
    word_bits: int = 16
    entries: int | None = None
    """Capacity in words; None means unlimited."""
    block_size: int = 1
    """Words moved by one access."""
    cluster_size: int = 1
    """Instances that share one address generator and one access."""
    read_bandwidth: float | None = None
    """Words per cycle and instance; None means unlimited."""
    write_bandwidth: float | None = None
    shared_bandwidth: float | None = None
    """Limit of reads and writes together."""
    multiple_buffering: float = 1.0
    """Copies of a tile that the capacity must hold; 2 for double buffering."""
    reduction_supported: bool = True
    """Whether partial sums that arrive are added here; if not, each is sent back in to be added."""
    keeps: frozenset[str] | None = None
    """Tensors that may be stored here; None means all."""
    tensor_entries: Mapping[str, int] = field(default_factory=dict)
    """Words set aside for one tensor, where the capacity is partitioned."""
    read_pj: float = 0.0
    """Energy of reading one block."""
    fill_pj: float = 0.0
    """Energy of writing one block that comes from outside."""
    update_pj: float = 0.0
    """Energy of writing one block that comes from inside."""
    address_pj: float = 0.0
    """Energy of generating one address, per cluster."""
    leak_pj_per_cycle: float = 0.0
    """Leakage energy per cycle and instance in use."""
    area_um2: float = 0.0
    """Area of one instance."""
    network: NetworkSpec = NetworkSpec()

    def __post_init__(self) -> None:
        """Refuse sizes that no memory has."""
        for name in ("instances", "mesh_x", "word_bits", "block_size", "cluster_size"):
            if getattr(self, name) < 1:
                raise SpecError(
                    f"{name} = {getattr(self, name)} is below 1", place=f"storage level {self.name}"
                )
        if self.instances % self.mesh_x:
            raise SpecError(
                f"mesh_x = {self.mesh_x} does not divide instances = {self.instances}",
                place=f"storage level {self.name}",
            )
        for name in ("read_bandwidth", "write_bandwidth", "shared_bandwidth"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise SpecError(
                    f"{name} = {value} is not above 0", place=f"storage level {self.name}"
                )
        if self.multiple_buffering < 1:
            raise SpecError(
                f"multiple_buffering = {self.multiple_buffering} is below 1",
                place=f"storage level {self.name}",
            )

    @property
    def mesh_y(self) -> int:
        """Rows in which the instances are laid out."""
        return self.instances // self.mesh_x

    @property
    def capacity(self) -> int | None:
        """Words that the tiles of one iteration may take, None where unlimited."""
        return None if self.entries is None else int(self.entries / self.multiple_buffering)

    def tensor_capacity(self, tensor: str) -> int | None:
        """Words set aside for `tensor`, None where the capacity is not partitioned for it."""
        words = self.tensor_entries.get(tensor)
        return None if words is None else int(words / self.multiple_buffering)

    def may_keep(self, tensor: str) -> bool:
        """Whether `tensor` may be stored at this level."""
        return self.keeps is None or tensor in self.keeps


@dataclass(frozen=True, slots=True)
class ComputeSpec:
    """The multiply-accumulate units."""

    instances: int
    mesh_x: int
    energy_pj: float
    """Energy of one multiply-accumulate."""
    word_bits: int = 16
    name: str = "MAC"
    area_um2: float = 0.0

    def __post_init__(self) -> None:
        """Refuse an array that is no rectangle."""
        if self.instances < 1 or self.mesh_x < 1 or self.instances % self.mesh_x:
            raise SpecError(
                f"{self.instances} units in {self.mesh_x} columns are no rectangle", place=self.name
            )

    @property
    def mesh_y(self) -> int:
        """Rows of units."""
        return self.instances // self.mesh_x


@dataclass(frozen=True, slots=True)
class Machine:
    """MACs and the storage levels around them, innermost level first."""

    name: str
    compute: ComputeSpec
    levels: tuple[StorageLevel, ...]

    def __post_init__(self) -> None:
        """Refuse a hierarchy in which an outer level has more instances than an inner one."""
        if not self.levels:
            raise SpecError("no storage level", place=self.name)
        mesh = [(self.compute.name, self.compute.mesh_x, self.compute.mesh_y)]
        mesh += [(level.name, level.mesh_x, level.mesh_y) for level in self.levels]
        for (inner, ix, iy), (outer, ox, oy) in pairwise(mesh):
            if ix % ox or iy % oy:
                raise SpecError(
                    f"{outer} is {ox}x{oy} and does not divide {inner}, which is {ix}x{iy}",
                    place=self.name,
                    remedy="give every level a mesh that divides the mesh inside it",
                )

    def fanout(self, level: int) -> tuple[int, int]:
        """Columns and rows of children that one instance of `level` serves."""
        inside = self.compute if level == 0 else self.levels[level - 1]
        outside = self.levels[level]
        return inside.mesh_x // outside.mesh_x, inside.mesh_y // outside.mesh_y

    @property
    def area_um2(self) -> float:
        """Area of all MACs and memories."""
        return self.compute.instances * self.compute.area_um2 + sum(
            level.instances * level.area_um2 for level in self.levels
        )

    def index(self, name: str) -> int:
        """Position of the level called `name`."""
        for i, level in enumerate(self.levels):
            if level.name == name:
                return i
        raise SpecError(
            f"no storage level {name}",
            place=self.name,
            remedy="one of: " + ", ".join(level.name for level in self.levels),
        )

    @classmethod
    def from_reference(cls, data: Mapping[str, Any]) -> Machine:
        """Build a machine from the JSON form of the reference set (`machines/*.json`).

        A level that names no `reduction_supported` reduces, unless it is a DRAM.
        """
        mac = data["arithmetic"]
        return cls(
            name=data["name"],
            compute=ComputeSpec(
                instances=mac["instances"],
                mesh_x=mac["meshX"],
                energy_pj=mac["energy_pj"],
                word_bits=mac["word_bits"],
                name=mac["name"],
            ),
            levels=tuple(_level_from_reference(level) for level in data["storage"]),
        )


def _level_from_reference(data: Mapping[str, Any]) -> StorageLevel:
    energy, wires = data["energy_pj"], data.get("network", {})
    return StorageLevel(
        name=data["name"],
        instances=data["instances"],
        mesh_x=data["meshX"],
        word_bits=data["word_bits"],
        entries=data.get("entries"),
        block_size=data["block_size"],
        cluster_size=data["cluster_size"],
        read_bandwidth=data.get("read_bandwidth"),
        write_bandwidth=data.get("write_bandwidth"),
        shared_bandwidth=data.get("shared_bandwidth"),
        multiple_buffering=data.get("multiple_buffering", 1.0),
        reduction_supported=data.get("reduction_supported", data["technology"] != "DRAM"),
        read_pj=energy["read"],
        fill_pj=energy["fill"],
        update_pj=energy["update"],
        address_pj=energy["address_generation"],
        leak_pj_per_cycle=energy["leak_per_cycle"],
        network=NetworkSpec(
            energy_per_hop_pj=wires.get("energy_per_hop", 0.0),
            router_energy_pj=wires.get("router_energy", 0.0),
            fill_latency_cycles=wires.get("fill_latency", 0),
            drain_latency_cycles=wires.get("drain_latency", 0),
        ),
    )
