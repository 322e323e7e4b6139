# SPDX-License-Identifier: Apache-2.0
"""Read CIFAR-10 and CIFAR-100 from disk, for the examples beside this file.

A folder holds one of three forms, told apart by its files:

- `cifar-10-batches-py` or `cifar-100-python`, the official archives for Python, unpacked (or the
  folder around one of them). They are pickles: an unpickler that admits plain containers and
  NumPy arrays, and nothing else, reads them;
- lossless shards: `index.json` and zip files of WebP tiles, each 10 x 10 images (needs Pillow).

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

SIDE = 32
"""Rows and columns of an image; three channels, red first."""
TILE = 10
"""A WebP tile holds TILE x TILE images, row by row."""
VALIDATION = 5000
"""The last training images serve as validation set."""

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Constants = tuple[float, float, float]

CIFAR_MEAN: Constants = (0.4914, 0.4822, 0.4465)
CIFAR_STD: Constants = (0.2470, 0.2435, 0.2616)
"""Per channel over the training images scaled to 0..1. Source: computed from the data."""


class _ArrayUnpickler(pickle.Unpickler):
    """Reads containers, numbers, strings and NumPy arrays; any other global is refused."""

    _known = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        """Return an allowed global.

        Raises:
            UnpicklingError: the file asks for anything else.
        """
        if (module, name) not in self._known:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which is not allowed")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _read_batch(path: Path) -> tuple[Images, Labels]:
    with path.open("rb") as file:
        batch = _ArrayUnpickler(file, encoding="bytes").load()
    labels = batch.get(b"labels", batch.get(b"fine_labels"))
    images = np.asarray(batch[b"data"], np.uint8).reshape(-1, 3, SIDE, SIDE)
    return images, np.asarray(labels, np.int64)


def _read_shard(folder: Path, entry: dict[str, Any]) -> tuple[Images, Labels]:
    from PIL import Image

    count = int(entry["images"])
    images = np.empty((count, 3, SIDE, SIDE), np.uint8)
    with zipfile.ZipFile(folder / entry["file"]) as shard:
        labels = np.frombuffer(shard.read("labels.bin"), np.uint8)
        for start in range(0, count, TILE * TILE):
            with Image.open(io.BytesIO(shard.read(f"{start // TILE**2:04d}.webp"))) as tile:
                pixels = np.asarray(tile.convert("RGB"))
            grid = pixels.reshape(TILE, SIDE, TILE, SIDE, 3).transpose(0, 2, 4, 1, 3)
            images[start : start + TILE * TILE] = grid.reshape(-1, 3, SIDE, SIDE)
    digest = hashlib.sha256(images.tobytes())
    digest.update(labels.tobytes())
    if digest.hexdigest() != entry["sha256"]:
        raise ValueError(f"{folder / entry['file']}: does not match its checksum in index.json")
    return images, labels.astype(np.int64)


def _parts(folder: Path, split: str) -> Sequence[Callable[[], tuple[Images, Labels]]]:
    """Return one reader per file of a split (`train` or `test`), in the original order."""
    for inside in (folder, folder / "cifar-10-batches-py", folder / "cifar-100-python"):
        if (inside / "data_batch_1").is_file():
            names = ["test_batch"] if split == "test" else [f"data_batch_{i}" for i in range(1, 6)]
            return [partial(_read_batch, inside / name) for name in names]
        if (inside / "train").is_file() and (inside / "test").is_file():
            return [partial(_read_batch, inside / split)]
    index = folder / "index.json"
    if index.is_file():
        return [partial(_read_shard, folder, e) for e in json.loads(index.read_text())[split]]
    raise FileNotFoundError(
        f"{folder}: no CIFAR data; expected the unpacked cifar-10-batches-py or cifar-100-python, "
        "or lossless shards with an index.json"
    )


@lru_cache(maxsize=4)
def load(folder: Path, split: str, limit: int | None = None) -> tuple[Images, Labels]:
    """Return the first `limit` images (all without a limit) of a split and their labels.

    Args:
        folder: where the data lie.
        split: `train` or `test`.
        limit: reads no more files than it needs.

    Returns:
        uint8 (N, 3, 32, 32) and int64 (N,); CIFAR-100 gives its 100 fine labels.
    """
    images, labels = [], []
    for part in _parts(folder, split):
        some, their = part()
        images.append(some)
        labels.append(their)
        if limit is not None and sum(map(len, labels)) >= limit:
            break
    return np.concatenate(images)[:limit], np.concatenate(labels)[:limit]


@dataclass(frozen=True)
class Cifar(Dataset[tuple[Tensor, int]]):
    """Normalised images with their labels; training images are shifted and mirrored at random."""

    images: Images
    labels: Labels
    mean: Constants
    std: Constants
    augment: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = torch.from_numpy(self.images[index]).float() / 255
        image = (image - _channels(self.mean)) / _channels(self.std)
        if self.augment:
            image = torch.nn.functional.pad(image, (4, 4, 4, 4))
            top, left, mirrored = (int(torch.randint(n, ())) for n in (9, 9, 2))
            image = image[:, top : top + SIDE, left : left + SIDE]
            image = image.flip(2) if mirrored else image
        return image, int(self.labels[index])


@lru_cache
def _channels(constants: Constants) -> Tensor:
    return torch.tensor(constants).view(3, 1, 1)


def find_folder(data: str) -> Path | None:
    """Return the folder to read: `data`, else `$ENOS_SHARED/data` where that exists, else None."""
    if data:
        return Path(data).expanduser()
    shared = os.environ.get("ENOS_SHARED")
    folder = Path(shared) / "data" if shared else None
    return folder if folder and folder.is_dir() else None


def splits(
    data: str, mean: Constants, std: Constants
) -> dict[str, Callable[[], Dataset[tuple[Tensor, int]]]] | None:
    """Return train, validation and test sets, each opened when it is called; None without data."""
    folder = find_folder(data)
    if folder is None:
        return None

    def training(part: slice, augment: bool) -> Cifar:
        images, labels = load(folder, "train")
        return Cifar(images[part], labels[part], mean, std, augment)

    return {
        "train": lambda: training(slice(None, -VALIDATION), True),
        "validation": lambda: training(slice(-VALIDATION, None), False),
        "test": lambda: Cifar(*load(folder, "test"), mean, std),
    }


def example_images(data: str, count: int, mean: Constants, std: Constants) -> Tensor:
    """Return the first `count` training images, (count, 3, 32, 32); seeded noise without data."""
    folder = find_folder(data)
    if folder is None:
        return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    images = Cifar(*load(folder, "train", count), mean, std)
    return torch.stack([images[i][0] for i in range(count)])


def load_weights(module: torch.nn.Module, weights: str) -> None:
    """Load parameters and running statistics from a safetensors file; nothing for an empty path."""
    if not weights:
        return
    from safetensors.torch import load_file

    state = load_file(Path(weights).expanduser())
    missing, unexpected = module.load_state_dict(state, strict=False)
    lacking = [name for name in missing if not name.endswith("num_batches_tracked")]
    if lacking or unexpected:
        raise ValueError(f"{weights}: lacks {lacking}, has unknown {unexpected}")
