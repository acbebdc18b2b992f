"""Quantizers from outside vqvideo: a subclass of `Quantizer` written elsewhere, or a foreign module behind an adapter.

    vqvae = VQVAE(VQVAEConfig(), (64, 64), quantizer=MyQuantizer())
    vqvae.save_pretrained("mine")
    vqvae = VQVAE.from_pretrained("mine", quantizer=MyQuantizer())

A saved model names the class and holds its tensors; code is never loaded from disk.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vqvideo.errors import InputError
from vqvideo.models.precision import single
from vqvideo.models.quantizers.base import Quantized, Quantizer, fp32
from vqvideo.models.quantizers.config import OutsideConfig


class Adapted(Quantizer):
    """A foreign module behind the contract, for instance those of vector-quantize-pytorch.

    The module takes latents (b, n, d) and returns (quantized, indices) or (quantized, indices, loss). Where it moves a
    codebook inside its own forward pass it does so here too, but only in passes that train: in all others it runs in
    eval mode.

    Example:
        >>> vq = VectorQuantize(dim=8, codebook_size=512, kmeans_init=True)
        >>> quantizer = Adapted(vq, dim=8, codebook_size=512, decode=vq.get_output_from_indices)
        >>> fsq = FSQ(levels=[8, 5, 5, 5])
        >>> quantizer = Adapted(fsq, dim=4, codebook_size=1000, decode=fsq.indices_to_codes)
    """

    def __init__(self, module: nn.Module, *, dim: int, codebook_size: int, decode: Callable[[Tensor], Tensor]) -> None:
        """`decode` maps indices (b, n) to code vectors (b, n, d), usually a method of the module."""
        super().__init__()
        self.module, self.dim, self.codebook_size = module, dim, codebook_size
        self._decode = decode

    def forward(self, z: Tensor) -> Quantized:
        with fp32(z):
            values, indices, loss = self._run(z, train=self.learns_from(z))
            return Quantized(values.reshape(z.shape), indices.reshape(z.shape[:-1]), loss)

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        with fp32(z):
            return self._run(z, train=False)[1].reshape(z.shape[:-1])

    def decode(self, indices: Tensor) -> Tensor:
        with fp32(indices):
            values = self._decode(indices.reshape(1, -1))
            return values.reshape(*indices.shape, self.dim)

    def _run(self, z: Tensor, *, train: bool) -> tuple[Tensor, Tensor, Tensor]:
        self.module.train(train)
        values, indices, *losses = self.module(single(z).reshape(1, -1, self.dim))
        self.module.train(self.training)
        loss = torch.stack([part.sum() for part in losses[:1]]).sum() if losses else single(z.new_zeros(()))
        # Some count in int32; what is no integer at all is left for `checked` to refuse.
        return values, indices if indices.is_floating_point() else indices.long(), loss


def outside_config(quantizer: Quantizer) -> OutsideConfig:
    """What a saved model remembers of a quantizer that was passed as a module."""
    cls = type(quantizer.module if isinstance(quantizer, Adapted) else quantizer)
    return OutsideConfig(f"{cls.__module__}.{cls.__qualname__}", quantizer.codebook_size, quantizer.dim)


def checked(quantizer: nn.Module, recorded: OutsideConfig | None = None) -> Quantizer:
    """The same module, if it keeps the contract of `Quantizer` on a few latents (those of a copy: it learns nothing).

    Args:
        quantizer: the module.
        recorded: what a saved model says about the module that it was trained with.

    Raises:
        InputError: says which promise is broken, or in what it differs from the recorded one.
    """
    if not isinstance(quantizer, Quantizer):
        raise InputError(
            f"quantizer is {type(quantizer).__name__}, expected a subclass of vqvideo.quantizers.Quantizer: wrap "
            "other modules in vqvideo.quantizers.Adapted"
        )
    name = outside_config(quantizer).name
    for attribute in ("dim", "codebook_size"):
        value = getattr(quantizer, attribute, None)
        if not isinstance(value, int) or value < 1:
            raise InputError(f"quantizer {name}: {attribute} is {value!r}, expected a positive int")
    found = outside_config(quantizer)
    if recorded is not None and found != recorded:
        raise InputError(f"the model was trained with {recorded}, the module passed is {found}")
    try:
        # Numbers are needed, also where the model around it is only sketched, on the meta device.
        with torch.device("cpu"):
            _probe(copy.deepcopy(quantizer).eval())
    except InputError as error:
        raise InputError(f"quantizer {name} breaks the contract: {error}") from error
    except (RuntimeError, TypeError, ValueError, IndexError, AssertionError) as error:
        raise InputError(f"quantizer {name} fails on latents (2, 3, {found.dim}): {error}") from error
    return quantizer


@torch.no_grad()
def _probe(quantizer: Quantizer) -> None:
    device = next((tensor.device for tensor in quantizer.state_dict().values()), torch.device("cpu"))
    z = torch.randn(2, 3, quantizer.dim, generator=torch.Generator().manual_seed(0)).to(device)
    values, indices, loss = quantizer(z)
    _expect("values", values.shape, z.shape)
    for what, codes in (("the indices of forward", indices), ("the indices of encode", quantizer.encode(z))):
        _expect(what, codes.shape, z.shape[:-1])
        _expect(f"the type of {what}", codes.dtype, torch.int64)
        quantizer.check(codes)
    _expect("the loss", loss.shape, ())
    decoded = quantizer.decode(indices)
    _expect("decoded indices", decoded.shape, z.shape)
    if (decoded - values).abs().max() > 1e-3 * values.abs().max().clamp(min=1):
        raise InputError("decoded indices are other values than those of the forward pass")


def _expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        found, expected = (tuple(v) if isinstance(v, torch.Size) else v for v in (found, expected))
        raise InputError(f"{what}: found {found}, expected {expected}")
