"""What dreams in the benchmark of the imagination: a world model, and how it is computed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, get_args

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from vqvideo.errors import InputError, suggest
from vqvideo.evaluation.speed import Dreaming
from vqvideo.models.prior import ActionStats, HeadConfig, Prior, PriorConfig, PriorSpec
from vqvideo.models.prior.sampling import Sampling
from vqvideo.models.tokenizer.vqvae import VQVAEConfig
from vqvideo.scripts.benchmarks.timing import Work
from vqvideo.spaces import ActionSpace
from vqvideo.storage.records import kind_of
from vqvideo.world import EnvFacts, WorldModel

MODES = {"eager": None, "compiled": "default", "graphs": "reduce-overhead"}
"""How it is computed, and what torch.compile calls that: as written, by fused kernels, by CUDA graphs of them."""
BASELINE = "autoregressive"
"""The head that the others are compared with."""
_DRIVING = {"kind": "box", "shape": [3], "dtype": "float32", "low": [-1.0, 0.0, 0.0], "high": [1.0, 1.0, 1.0]}


def head_kinds() -> dict[str, type]:
    """The settings of every head there is, by the name used here: parallel, masked, autoregressive."""
    return {kind_of(cls).removesuffix("Head").lower(): cls for cls in get_args(HeadConfig) or (HeadConfig,)}


def chosen_heads(names: tuple[str, ...]) -> list[str]:
    """The heads called `names`, in the order of the union; all for none. InputError for an unknown name."""
    known = head_kinds()
    for name in names:
        if name not in known:
            raise InputError(f"there is no head {name!r}: {suggest(name, known)}")
    return [name for name in known if not names or name in names]


@dataclass(frozen=True)
class Trained:
    """A world model on disk, with the head that it has learnt with."""

    folder: str
    """Folder of the world model, or another name that `WorldModel.from_pretrained` knows."""

    def load(self) -> WorldModel:
        return WorldModel.from_pretrained(self.folder)

    @property
    def head(self) -> str:
        """Name of its head."""
        kind = type(self.load().prior.cfg.head)
        return next(name for name, cls in head_kinds().items() if cls is kind)


@dataclass(frozen=True)
class Untrained:
    """A world model with the shape of an experiment's and random weights, on which speed hardly depends."""

    vqvae: VQVAEConfig
    """Its tokenizer."""
    prior: PriorConfig
    """Its prior."""
    size: tuple[int, int] = (64, 64)
    """Height and width of the frames in pixels."""
    seed: int = 0
    """Of the weights."""

    def with_head(self, name: str) -> Untrained:
        """The same with another head, in its default settings unless the experiment has that head."""
        cls = head_kinds()[name]
        return self if isinstance(self.prior.head, cls) else replace(self, prior=replace(self.prior, head=cls()))

    def load(self) -> WorldModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            vqvae = self.vqvae.build(self.size)
            spec = PriorSpec(
                grid=vqvae.grid,
                codebook_size=len(vqvae.codebook),
                code_dim=vqvae.codebook.shape[1],
                stride=vqvae.stride,
                action_space=ActionSpace.from_json(_DRIVING),
                stats=ActionStats((0.0, 0.5, 0.0), (1.0, 1.0, 1.0), -1.0, 1.0),
                tokenizer=vqvae.fingerprint(),
            )
            prior = Prior(self.prior, spec, vqvae.codebook)
        return WorldModel(vqvae, prior, EnvFacts("untrained", 25.0, 1))


@dataclass(frozen=True)
class Dreams:
    """Some streams dreamt at once: a contestant."""

    world: Trained | Untrained
    """What dreams."""
    head: str
    """Name of its head."""
    streams: int = 1
    """Dreams at once, b."""
    precision: str = "fp32"
    """fp32, or bf16 by autocast."""
    mode: str = "eager"
    """Key of `MODES`."""
    sampling: Sampling = field(default_factory=Sampling)
    """How codes are drawn."""

    @property
    def name(self) -> str:
        return f"{self.head} {self.precision} {self.mode}"

    def begin(self, device: torch.device) -> Dreaming:
        """The dreams, a few steps under way."""
        world = self.world.load().to(device).eval().requires_grad_(False)
        if (mode := MODES[self.mode]) is not None:
            world.compile_steps(mode)
        with self.autocast(device):
            dreaming = Dreaming(world, self.streams, self.sampling)
            # What is compiled is compiled again when the ring begins and when it wraps around.
            for _ in range(2 if self.mode == "eager" else 2 * world.prior.cfg.window):
                self.step(dreaming)
        return dreaming

    def prepare(self, device: torch.device) -> Work:
        dreaming = self.begin(device)

        def call() -> object:
            with self.autocast(device):
                return self.step(dreaming)

        return call

    def step(self, dreaming: Dreaming) -> object:
        """Imagines one latent step."""
        if self.mode != "graphs":
            return dreaming()
        # A graph writes its results to the same place each time, and the state is one of them.
        torch.compiler.cudagraph_mark_step_begin()
        step = dreaming()
        dreaming.state = tree_map_only(Tensor, Tensor.clone, dreaming.state)
        return step

    def autocast(self, device: torch.device) -> torch.autocast:
        """The precision, as a context."""
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")


def state_bytes(state: Any) -> int:
    """Bytes of all tensors in nested tuples. What several share counts once, and of a view all that it keeps alive."""
    tensors = [leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor)]
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
