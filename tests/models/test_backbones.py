"""Encoders and decoders: shapes, causality, whole = in chunks, and what a config refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_tokenizers import BACKBONES, STRIDES, name_of, small_backbone, small_quantizer, wake
from torch import Tensor, nn

from vqvideo.errors import InputError
from vqvideo.models.tokenizer import Backbone, ConvConfig, FactorisedConv, FrameConv, StridedConv, VQVAEConfig
from vqvideo.models.tokenizer.backbones import Down, ResidualBlock, Up, make_decoder, make_encoder
from vqvideo.models.tokenizer.causal import TimeState, TimeWalk

each_backbone = pytest.mark.parametrize("kind", BACKBONES, ids=name_of)
each_stride = pytest.mark.parametrize("stride", STRIDES)


def run(net: nn.Module, x: Tensor, state: TimeState | None = None) -> tuple[Tensor, TimeState]:
    """Of (b, c, t, h, w), whose channels come last inside."""
    walk = TimeWalk(state or TimeState((), torch.ones(len(x), dtype=torch.bool)))
    with torch.no_grad():
        return net(x.movedim(1, -1), walk).movedim(-1, 1), walk.finish()


def nets(kind: type[Backbone], stride: int) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    cfg = small_backbone(kind, stride)
    quantizer = small_quantizer(dim=5).build()
    return wake(cfg.encoder(quantizer)), wake(cfg.decoder(5))


def grid_of(kind: type[Backbone]) -> tuple[int, int]:
    """Of frames of 16 x 16 pixels."""
    return small_backbone(kind, 1).grid_of((16, 16))


# ---------------------------------------------------------------- properties of every backbone


@each_backbone
@each_stride
def test_encoder_and_decoder_undo_each_others_shapes(kind: type[Backbone], stride: int) -> None:
    encoder, decoder = nets(kind, stride)
    z, _ = run(encoder, torch.randn(2, 3, 3 * stride, 16, 24))
    assert z.shape == (2, 5, 3, *small_backbone(kind, stride).grid_of((16, 24)))
    assert run(decoder, z)[0].shape == (2, 3, 3 * stride, 16, 24)


@each_backbone
def test_the_past_reaches_later_latents_and_frames(kind: type[Backbone]) -> None:
    """Causal because it looks back, not because it looks at nothing."""
    encoder, decoder = nets(kind, 2)
    for net, shape, later in ((encoder, (1, 3, 6, 16, 16), 1), (decoder, (1, 5, 3, *grid_of(kind)), 2)):
        x = torch.randn(shape)
        other = x.clone()
        other[:, :, 0] += 3
        assert (run(net, x)[0] - run(net, other)[0])[:, :, later].abs().max() > 1e-3


@each_backbone
@each_stride
@pytest.mark.parametrize("chunks", [(1, 1, 1, 1, 1), (2, 3), (1, 3, 1)])
def test_chunks_give_what_the_whole_gives(kind: type[Backbone], stride: int, chunks: tuple[int, ...]) -> None:
    encoder, decoder = nets(kind, stride)
    frames, z = torch.randn(2, 3, 5 * stride, 16, 16), torch.randn(2, 5, 5, *grid_of(kind))
    for net, x, lengths in ((encoder, frames, [c * stride for c in chunks]), (decoder, z, list(chunks))):
        state, parts = None, []
        for chunk in x.split(lengths, dim=2):
            part, state = run(net, chunk, state)
            parts.append(part)
        torch.testing.assert_close(torch.cat(parts, dim=2), run(net, x)[0], atol=1e-5, rtol=1e-5)


# ---------------------------------------------------------------- parts


def test_folding_down_and_up_keeps_every_pixel() -> None:
    stride = (2, 2, 4)
    down, up = Down(3, 48, stride), Up(48, 3, stride)
    for fold in (down, up):
        nn.init.dirac_(fold.project.weight)
        nn.init.zeros_(fold.project.bias)
    x = torch.randn(2, 3, 4, 6, 8)
    assert torch.equal(run(up, run(down, x)[0])[0], x)


def test_a_new_residual_block_adds_only_a_constant() -> None:
    x = torch.randn(1, 8, 3, 4, 4)
    added = run(ResidualBlock(8, ((1, 3, 3), (3, 1, 1))), x)[0] - x
    torch.testing.assert_close(added, added[:, :, :1, :1, :1].expand_as(added), atol=1e-6, rtol=0)


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("strides", "patch", "widths", "folds"),
    [
        ((2, 8, 8), 4, (64, 128), ((1, 4, 4), (2, 2, 2))),
        ((4, 4, 4), 4, (64,), ((4, 4, 4),)),
        ((1, 8, 4), 2, (8, 16, 32), ((1, 2, 2), (1, 2, 2), (1, 2, 1))),
        ((2, 2, 2), 1, (8, 16), ((1, 1, 1), (2, 2, 2))),
    ],
)
def test_levels_multiply_to_the_strides_and_fold_time_last(
    strides: tuple[int, int, int], patch: int, widths: tuple[int, ...], folds: tuple[tuple[int, int, int], ...]
) -> None:
    cfg = FactorisedConv(strides=strides, patch=patch, widths=widths)
    assert cfg.level_strides == folds
    t, h, w = strides
    assert run(make_encoder(cfg, 3), torch.randn(1, 3, t, h, 2 * w))[0].shape == (1, 3, 1, 1, 2)
    assert run(make_decoder(cfg, 3), torch.randn(1, 3, 1, 1, 2))[0].shape == (1, 3, t, h, 2 * w)


@pytest.mark.parametrize("kind", [kind for kind in BACKBONES if issubclass(kind, ConvConfig)], ids=name_of)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strides": (3, 4, 4)}, "time stride is 3, expected 1"),
        ({"strides": (1, 6, 4)}, "powers of two"),
        ({"strides": (1, 1, 4)}, "the patch or more"),
        ({"patch": 3}, "powers of two"),
        ({"widths": (8,)}, "make 2 levels, give one width for each"),
        ({"widths": (8, 16, 32)}, "make 2 levels, give one width for each"),
        ({"encoder_blocks": -1}, "expected at least"),
        ({"decoder_blocks": -1}, "expected at least"),
    ],
)
def test_a_config_that_cannot_be_built_is_refused(kind: type[Backbone], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small_backbone(kind, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strides": (2, 4, 4)}, "time stride is 2, expected 1"),
        ({"strides": (1, 4, 8)}, "the same power of two"),
        ({"strides": (1, 6, 6)}, "the same power of two"),
        ({"strides": (1, 1, 1)}, "the same power of two"),
        ({"width": 0}, r"backbone.width is 0, expected at least 1"),
        ({"per_cell": 0}, r"backbone.per_cell is 0, expected at least 1"),
    ],
)
def test_strided_convolutions_that_cannot_be_built_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StridedConv(**settings)


# ---------------------------------------------------------------- the network of the first article


def test_the_original_network_has_the_layers_of_the_article() -> None:
    encoder, decoder = StridedConv().encoder(small_quantizer().build()), StridedConv().decoder(4)
    convs = [m for net in (encoder, decoder) for m in net.modules() if isinstance(m, nn.modules.conv._ConvNd)]
    found = [(type(conv).__name__, conv.kernel_size[-1], conv.stride[-1], conv.out_channels) for conv in convs]
    block = [("Conv3d", 3, 1, 256), ("Conv3d", 1, 1, 256)]
    down, up = [("Conv2d", 4, 2, 256)], [("ConvTranspose2d", 4, 2, 256), ("ConvTranspose2d", 4, 2, 3)]
    assert found == [*down, *down, *block, *block, ("Conv3d", 1, 1, 4), ("Conv3d", 3, 1, 256), *block, *block, *up]


def test_several_latents_of_a_cell_stand_beside_each_other() -> None:
    model = VQVAEConfig(StridedConv(width=8, blocks=1, per_cell=10), small_quantizer()).build((32, 32)).eval()
    frames = torch.rand(1, 1, 3, 32, 32)
    codes = model.encode(frames)
    assert codes.shape == (1, 1, 8, 80)
    assert model.decode(codes).shape == frames.shape
    other = codes.clone()
    other[..., 0, 40:50] = (other[..., 0, 40:50] + 1) % 32
    moved = (model.decode(other) - model.decode(codes))[0, 0].abs().sum(dim=0)
    assert moved[:, 16:20].sum() > 0
    assert moved[24:].sum() == 0, "a cell shows where it is"


def test_a_finer_field_of_latents_is_coarsened_by_its_tokens() -> None:
    backbone = StridedConv(per_cell=4)
    assert backbone.coarsened((32, 32), 256) == backbone
    assert backbone.coarsened((32, 32), 255) == StridedConv(strides=(1, 8, 8), per_cell=4)


def test_without_blocks_a_token_is_its_own_cell_of_its_own_frame() -> None:
    backbone = FrameConv(strides=(1, 4, 4), patch=4, widths=(8,), encoder_blocks=0, decoder_blocks=0)
    torch.manual_seed(0)
    model = VQVAEConfig(backbone).build((16, 16)).eval()
    wake(model)
    frames = torch.randint(0, 256, (1, 3, 3, 16, 16), dtype=torch.uint8)
    other = frames.clone()
    other[:, 1, :, 4:8, 8:12] = 255 - other[:, 1, :, 4:8, 8:12]
    moved = (
        (
            model._latents(model._signed(frames), model.init_state(1))[0]
            - model._latents(model._signed(other), model.init_state(1))[0]
        )
        .abs()
        .sum(dim=-1)
    )
    assert moved.nonzero().tolist() == [[0, 1, 1, 2]]
