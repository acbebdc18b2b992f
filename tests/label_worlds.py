"""A store of labelled frames and an untrained world that imagines them, for the tests of worlds of labels."""

from __future__ import annotations

from pathlib import Path

import torch
from mnist_files import squares, write_mnist

from vqvideo.data.config import ImportConfig
from vqvideo.data.importing import import_data
from vqvideo.data.store import Store
from vqvideo.evaluation.label_classifier import labelled_frames
from vqvideo.models.prior import ActionStats, PixelCNNConfig, Prior, PriorConfig, PriorSpec
from vqvideo.models.quantizers import EMAVQConfig
from vqvideo.models.tokenizer import FrameConv, VQVAEConfig
from vqvideo.world import EnvFacts, WorldModel


def label_store(folder: Path) -> Store:
    """600 frames to train on, 100 held out."""
    write_mnist(folder, *squares(600))
    write_mnist(folder, *squares(100, seed=1), part="t10k")
    return Store.open(import_data(ImportConfig(folder, out=folder / "store", frame_size=28, workers=1)))


def label_world(store: Store) -> WorldModel:
    """7 x 7 tokens of 16 codes."""
    torch.manual_seed(0)
    backbone = FrameConv(strides=(1, 4, 4), widths=(8,), encoder_blocks=0, decoder_blocks=0)
    vqvae = VQVAEConfig(backbone, EMAVQConfig(16, 4)).build((28, 28))
    vqvae.initialize(labelled_frames(store, "train").frames[:64, None])
    vqvae.eval()
    stats = ActionStats((4.5,), (3.0,), 0.0, 0.0)
    spec = PriorSpec((7, 7), 16, 4, 1, store.meta.action_space, stats, vqvae.fingerprint())
    cfg = PriorConfig(dim=16, heads=2, layers=2, window=1, head=PixelCNNConfig(layers=2))
    return WorldModel(vqvae, Prior(cfg, spec, vqvae.codebook), EnvFacts("MNIST", 2.0, 1)).eval()
