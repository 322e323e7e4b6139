# SPDX-License-Identifier: Apache-2.0
"""The examples load from anywhere, read every form of their data, and give what they should."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from enos_compiler.errors import FrontendError
from enos_compiler.frontend.user import UserModel, load_user_model
from enos_compiler.search.evaluate import evaluate, module_predictor

EXAMPLES = Path(__file__).parents[2] / "examples"
CIFAR_MODELS = ("resnet20_cifar10", "squeezenet_cifar10", "shufflenet_cifar10", "mobilenet_cifar10")


def load(name: str, **arguments: str) -> UserModel:
    return load_user_model(str(EXAMPLES / f"{name}.py"), arguments)


@pytest.fixture
def cifar(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    sys.modules.pop("cifar", None)
    return importlib.import_module("cifar")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No example may depend on the folder that it is run from, or on reference data."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENOS_SHARED", raising=False)


def write_official(folder: Path, images: int = 6) -> tuple[np.ndarray, list[int]]:
    """Write a small cifar-10-batches-py of random pixels."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    pixels = rng.integers(0, 256, (6, images, 3072), dtype=np.uint8)
    labels = rng.integers(0, 10, (6, images)).tolist()
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for name, data, classes in zip(names, pixels, labels, strict=True):
        content = {b"data": data, b"labels": classes, b"batch_label": name.encode()}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return pixels, [label for row in labels for label in row]


@pytest.mark.usefixtures("no_data")
@pytest.mark.parametrize("name", CIFAR_MODELS)
def test_networks_give_ten_logits(name: str) -> None:
    user = load(name, images="3")
    outputs = user.model()(*user.example_inputs())
    assert outputs.shape == (3, 10)
    assert user.data() is None
    hundred = load(name, classes="100").model()
    assert hundred(torch.zeros(1, 3, 32, 32)).shape == (1, 100)


@pytest.mark.parametrize(("version", "published"), [("1", 4_231_976), ("2", 3_504_872)])
def test_mobilenets_have_the_published_number_of_parameters(version: str, published: int) -> None:
    model = load("mobilenet_cifar10", version=version, width="1.0", classes="1000").model()
    assert sum(p.numel() for p in model.parameters()) == published


def test_resnet20_has_the_published_number_of_parameters() -> None:
    count = sum(p.numel() for p in load("resnet20_cifar10").model().parameters())
    assert count == 269_722


def test_digits_are_fixed_by_their_seed_and_split_without_overlap() -> None:
    user = load("digits")
    first, second = user.model(), load("digits").model()
    x = user.example_inputs()[0]
    torch.rand(3)
    assert torch.equal(first(x), second(x))
    data = user.data()
    assert data is not None
    sizes = [len(data.dataset(name) or ()) for name in ("train", "validation", "test")]
    assert sizes == [1100, 197, 500]
    assert sum(sizes) == 1797


def test_official_files_are_read_in_order(cifar: ModuleType, tmp_path: Path) -> None:
    pixels, labels = write_official(tmp_path / "cifar-10-batches-py")
    images, found = cifar.load(tmp_path, "train")
    assert images.shape == (30, 3, 32, 32)
    np.testing.assert_array_equal(images.reshape(5, 6, 3072), pixels[:5])
    assert found.tolist() == labels[:30]
    images, found = cifar.load(tmp_path / "cifar-10-batches-py", "test", 2)
    np.testing.assert_array_equal(images.reshape(2, 3072), pixels[5, :2])
    assert found.tolist() == labels[30:32]


def test_cifar_100_gives_its_fine_labels(cifar: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    data = np.zeros((3, 3072), np.uint8)
    content = {b"data": data, b"fine_labels": [99, 1, 50], b"coarse_labels": [1, 2, 3]}
    for name in ("train", "test"):
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    assert cifar.load(tmp_path, "test")[1].tolist() == [99, 1, 50]


def test_a_pickle_that_would_run_code_is_refused(cifar: ModuleType, tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    folder = tmp_path / "data"
    write_official(folder)
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": Malicious()}, protocol=2))
    with pytest.raises(pickle.UnpicklingError, match="system, which is not allowed"):
        cifar.load(folder, "test")
    assert not (tmp_path / "ran").exists()


def test_folder_without_data_is_named(tmp_path: Path) -> None:
    data = load("resnet20_cifar10", data=str(tmp_path)).data()
    assert data is not None
    with pytest.raises(FrontendError, match="no CIFAR data; expected the unpacked"):
        data.dataset("test")


def test_pixels_are_normalised_and_augmented_only_for_training(
    cifar: ModuleType, tmp_path: Path
) -> None:
    pixels, labels = write_official(tmp_path / "data")
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    sets = cifar.splits(str(tmp_path / "data"), mean, std)
    assert sets is not None
    image, label = sets["test"]()[1]
    expected = pixels[5, 1].reshape(3, 32, 32) / 255 - np.reshape(mean, (3, 1, 1))
    np.testing.assert_allclose(image.numpy(), expected / np.reshape(std, (3, 1, 1)), atol=1e-5)
    assert label == labels[31]
    training = cifar.Cifar(*cifar.load(tmp_path / "data", "train"), mean, std, augment=True)
    torch.manual_seed(0)
    draws = torch.stack([training[0][0] for _ in range(8)])
    assert draws.shape == (8, 3, 32, 32)
    assert not torch.equal(draws[0], draws[1])


def test_lossless_shards_are_the_real_images(cifar: ModuleType, shared: Path) -> None:
    images, labels = cifar.load(shared / "data", "train", 200)
    assert images.shape == (200, 3, 32, 32)
    assert labels[:5].tolist() == [6, 9, 9, 4, 1]


@pytest.mark.parametrize(
    ("limit", "correct"), [(500, 455), pytest.param(None, 9173, marks=pytest.mark.slow)]
)
def test_resnet20_reaches_the_accuracy_of_its_authors(
    shared: Path, limit: int | None, correct: int
) -> None:
    """91.73 % on the 10,000 test images, as the repository of the weights reports."""
    weights = shared / "models" / "resnet20_cifar10.safetensors"
    user = load("resnet20_cifar10", weights=str(weights), data=str(shared / "data"))
    data = user.data()
    assert data is not None
    found = evaluate(module_predictor(user.model()), data, "test", batch=250, limit=limit)
    assert found is not None
    assert found.correct == correct
