"""The networks of a world as graphs of tensors alone: what is traced into ONNX.

Every graph carries its state from call to call: tensors (b, ...) in, the same tensors out. So the host, in whatever
language, keeps no more than what it is given back.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from vqvideo.export.graph_sampling import GraphSampler
from vqvideo.models.pixels import from_signed, to_signed, to_uint8
from vqvideo.models.prior import Prior
from vqvideo.models.prior.backbone import Hidden
from vqvideo.models.prior.blocks import TimeBlock
from vqvideo.models.prior.conditioning import NoActions
from vqvideo.models.prior.rotary import TIME_BASE, Rotation, rotary_angles
from vqvideo.models.tokenizer.causal import TimeState, TimeWalk
from vqvideo.models.tokenizer.vqvae import VQVAE

State = dict[str, Tensor]
"""Names and tensors (b, ...) that a graph gets from its last call."""


class Graph(nn.Module):
    """One graph: named inputs and state in, named outputs and state out."""

    def example(self, batch: int) -> tuple[dict[str, Tensor], State]:
        """Inputs and a fresh state of `batch` rows."""
        raise NotImplementedError

    def compute(self, inputs: dict[str, Tensor], state: State) -> tuple[dict[str, Tensor], State]:
        """Outputs and the next state."""
        raise NotImplementedError


class StepGraph(Graph):
    """One latent step of a prior, its codes drawn inside.

    Keys are kept as they come, not turned by the clock as in `KVCache`: the query is turned once for each age instead.
    So there is no clock, every row may have begun at another time, and the window moves by dropping its oldest step.
    """

    cos: Tensor
    sin: Tensor
    rewards: Tensor

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior = prior
        self.ages = range(prior.cfg.window - 1, -1, -1)
        turned = Rotation.by(rotary_angles(torch.tensor(self.ages), prior.backbone.head_dim, TIME_BASE))
        self.register_buffer("cos", turned.cos)
        self.register_buffer("sin", turned.sin)
        self.register_buffer("rewards", prior.reward.values)

    def example(self, batch: int) -> tuple[dict[str, Tensor], State]:
        spec, rows = self.prior.spec, torch.arange(batch, dtype=torch.int32)
        acting = {
            "actions": self._some_action().expand(batch, spec.stride, -1),
            "known": torch.ones(batch, dtype=torch.bool),
        }
        inputs = {
            "codes": torch.zeros(batch, *spec.grid, dtype=torch.int32),
            **(acting if spec.action_space.size else {}),
            "noise": torch.zeros(batch, self.numbers, dtype=torch.int32),
            **{name: torch.tensor(1.0) for name in ("temperature", "top_p", "guidance")},
            "told": rows,
            "untold": rows,
        }
        state = {"seen": torch.zeros(batch, dtype=torch.int32)}
        for number, cache in enumerate(self.prior.backbone.init_caches(batch)):
            state |= {f"keys.{number}": cache.k, f"values.{number}": cache.v}
        return inputs, state

    def _some_action(self) -> Tensor:
        """(a,): 0, or what of the space is nearest."""
        low, high, _ = self.prior.spec.action_space.limits
        return torch.from_numpy(np.clip(0.0, low, high)).float()

    def compute(self, inputs: dict[str, Tensor], state: State) -> tuple[dict[str, Tensor], State]:
        hidden, after = self._backbone(inputs, state)
        sampler = GraphSampler(inputs)
        codes = self.prior.head.sample(hidden.tokens[:, 0], sampler)  # type: ignore[arg-type]
        reward, termination = self.prior._outcome(hidden, codes[:, None])
        outputs = {
            "next.codes": codes.unflatten(1, self.prior.spec.grid).int(),
            "reward": self._reward(reward[:, 0]),
            "termination": termination[:, 0].sigmoid(),
            "entropy": torch.cat(sampler.entropies, dim=1).mean(dim=1),
            "logits": torch.cat(sampler.logits, dim=1),
        }
        return outputs, after

    @property
    def numbers(self) -> int:
        """How many random numbers a step takes: asked of the head itself."""
        spec = self.prior.spec
        zero = torch.zeros(1, dtype=torch.int32)
        noise = torch.zeros(1, 4 * spec.tokens, dtype=torch.int32)
        scalars = {name: torch.tensor(1.0) for name in ("temperature", "top_p", "guidance")}
        sampler = GraphSampler(scalars | {"noise": noise, "told": zero, "untold": zero})
        self.prior.head.sample(torch.zeros(1, spec.tokens, self.prior.cfg.token_dim), sampler)  # type: ignore[arg-type]
        return sampler.numbers

    def _backbone(self, inputs: dict[str, Tensor], state: State) -> tuple[Hidden, State]:
        backbone = self.prior.backbone
        seen = (state["seen"] + 1).clamp(max=len(self.ages))
        hidden = torch.tensor(self.ages) >= seen[:, None]
        after: State = {"next.seen": seen}
        tokens = backbone.embed(inputs["codes"].long().flatten(1)[:, None])
        if "actions" in inputs:
            vector = backbone.actions(inputs["actions"][:, None], inputs["known"][:, None])
        else:
            assert isinstance(backbone.actions, NoActions)
            vector = torch.zeros_like(tokens[:, :, 0, :1]) + backbone.actions.vector
        x, number = backbone.conditioning.enter(backbone.squares.fold(tokens), vector), 0
        for block in backbone.blocks:
            if isinstance(block, TimeBlock):
                names = f"keys.{number}", f"values.{number}"
                x, *cache = self._in_time(block, x, vector, hidden, *(state[name] for name in names))
                after |= {f"next.{name}": part for name, part in zip(names, cache, strict=True)}
                number += 1
            else:
                x = block(x, vector)
        return backbone._hidden(x, tokens), after

    def _in_time(
        self, block: TimeBlock, x: Tensor, action: Tensor, hidden: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `TimeBlock.step`, with keys and values (b, n, heads, window, e) and what of them is `hidden`
        (b, window).
        """
        q, k, v = block.attention.qkv(block.norm_attention(x, action)[:, 0], _unturned)
        keys = torch.cat([keys[..., 1:, :], k[..., None, :]], dim=-2)
        values = torch.cat([values[..., 1:, :], v[..., None, :]], dim=-2)
        turned = Rotation(self.cos, self.sin)(q[..., None, :])
        scores = (turned * keys).sum(dim=-1) * q.shape[-1] ** -0.5
        weights = scores.masked_fill(hidden[:, None, None], -torch.inf).softmax(dim=-1)
        x = x + block.attention.out((weights[..., None, :] @ values).flatten(2)[:, None])
        return x + block.mlp(block.norm_mlp(x, action)), keys, values

    def _reward(self, logits: Tensor) -> Tensor:
        """Expected reward (b,) of logits (b, bins): their values are constants here, for ONNX has no `expm1`."""
        constant = self.prior.reward.constant
        if constant is not None:
            return logits[:, 0] * 0 + self.prior.reward.mean(torch.zeros(1))
        return (logits.softmax(dim=-1) * self.rewards).sum(dim=-1)


def _unturned(x: Tensor) -> Tensor:
    return x


class _TokenizerGraph(Graph):
    """Half of a tokenizer, one latent step at a time."""

    def __init__(self, vqvae: VQVAE) -> None:
        super().__init__()
        self.vqvae = vqvae

    def example(self, batch: int) -> tuple[dict[str, Tensor], State]:
        inputs = self._example(batch)
        fresh: State = {"fresh": torch.ones(batch, dtype=torch.bool)}
        _, after = self.compute(inputs, fresh)
        past = {name.removeprefix("next."): torch.zeros_like(part) for name, part in after.items() if "past" in name}
        return inputs, fresh | past

    def _example(self, batch: int) -> dict[str, Tensor]:
        raise NotImplementedError

    def _walk(self, state: State) -> TimeWalk:
        return TimeWalk(TimeState(tuple(part for name, part in state.items() if name != "fresh"), state["fresh"]))

    def _after(self, walk: TimeWalk) -> State:
        past, fresh = walk.finish()
        return {"next.fresh": fresh, **{f"next.past.{i}": part for i, part in enumerate(past)}}


class DecoderGraph(_TokenizerGraph):
    """Codes (b, h, w) of a latent step to its frames (b, s, h, w, c) uint8."""

    def _example(self, batch: int) -> dict[str, Tensor]:
        return {"codes": torch.zeros(batch, *self.vqvae.grid, dtype=torch.int32)}

    def compute(self, inputs: dict[str, Tensor], state: State) -> tuple[dict[str, Tensor], State]:
        walk = self._walk(state)
        values = self.vqvae.quantizer.decode(inputs["codes"].long()[:, None])
        frames = self.vqvae.decoder(values, walk)
        return {"frames": to_uint8(from_signed(frames))}, self._after(walk)


class EncoderGraph(_TokenizerGraph):
    """Frames (b, s, h, w, c) uint8 to the codes (b, h, w) of their latent step. Of the frames of a fresh row only the
    last one counts.
    """

    def _example(self, batch: int) -> dict[str, Tensor]:
        return {"frames": torch.zeros(batch, self.vqvae.stride, *self.vqvae.frame_size, 3, dtype=torch.uint8)}

    def compute(self, inputs: dict[str, Tensor], state: State) -> tuple[dict[str, Tensor], State]:
        walk, frames = self._walk(state), to_signed(inputs["frames"])
        still = frames[:, -1:].expand_as(frames)
        frames = torch.where(state["fresh"][:, None, None, None, None], still, frames)
        codes = self.vqvae.quantizer.encode(self.vqvae.encoder(frames, walk))
        return {"codes": codes[:, 0].int()}, self._after(walk)
