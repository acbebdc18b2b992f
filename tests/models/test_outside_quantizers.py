"""Quantizers from outside vqvideo: a user's own class, and foreign modules behind the adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import SIZE, noise_frames, vqvae_config
from torch import Tensor, nn

from vqvideo.errors import InputError
from vqvideo.models.quantizers import Adapted, OutsideConfig, Quantized, Quantizer, straight_through
from vqvideo.models.tokenizer.vqvae import VQVAE

PLACE = (SIZE, SIZE)


class Signs(Quantizer):
    """A user's own: the sign of each of `dim` dimensions, scaled by a number that is learnt."""

    def __init__(self, dim: int = 3) -> None:
        super().__init__()
        self.dim, self.codebook_size = dim, 2**dim
        self.size = nn.Parameter(torch.tensor(0.5))

    def forward(self, z: Tensor) -> Quantized:
        z = z.float()
        indices = self.encode(z)
        values = self.decode(indices)
        return Quantized(
            straight_through(z, values.detach()) + values - values.detach(), indices, (z - values).square().mean()
        )

    def encode(self, z: Tensor) -> Tensor:
        return ((z > 0) * 2 ** torch.arange(self.dim)).sum(dim=-1)

    def decode(self, indices: Tensor) -> Tensor:
        return ((indices[..., None] >> torch.arange(self.dim) & 1) * 2 - 1) * self.size


class Foreign(nn.Module):
    """A module as other packages write it: (b, n, d) to (quantized, indices, loss), and its codebook moves inside."""

    def __init__(self, dim: int = 4, k: int = 16) -> None:
        super().__init__()
        self.register_buffer("codes", torch.randn(k, dim, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert x.ndim == 3
        indices = torch.cdist(x, self.codes[None]).argmin(dim=-1)
        values = self.lookup(indices)
        if self.training:
            self.codes[indices.flatten()] += 0.01 * (x - values).detach().reshape(-1, x.shape[-1])
        return x + (values - x).detach(), indices.int(), ((x - values) ** 2).mean()[None]

    def lookup(self, indices: Tensor) -> Tensor:
        return self.codes[indices]


def adapted(**changes: Any) -> Adapted:
    module = Foreign()
    return Adapted(module, **{"dim": 4, "codebook_size": 16, "decode": module.lookup, **changes})


MAKERS = {"own": Signs, "foreign": adapted}
each_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@each_maker
def test_a_tokenizer_trains_with_a_quantizer_from_outside(make: Any) -> None:
    torch.manual_seed(0)
    vqvae = VQVAE(vqvae_config(), PLACE, quantizer=make()).train()
    assert vqvae.cfg.quantizer == OutsideConfig(
        f"{__name__}.{'Signs' if make is Signs else 'Foreign'}", vqvae.quantizer.codebook_size, vqvae.quantizer.dim
    )
    frames = noise_frames(2, 5)
    vqvae.initialize(frames)
    output = vqvae(frames)
    output.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vqvae.parameters())
    vqvae.after_step()
    codes = vqvae.eval().encode(frames)
    assert codes.dtype == torch.int64
    assert vqvae.decode(codes).shape == frames.shape
    assert vqvae.take_usage()["effective_bits"] > 0


@each_maker
def test_a_saved_model_comes_back_with_the_module_that_is_passed(make: Any, tmp_path: Path) -> None:
    vqvae = VQVAE(vqvae_config(), PLACE, quantizer=make()).eval()
    for tensor in vqvae.quantizer.state_dict().values():
        tensor.mul_(1.5)
    vqvae.save_pretrained(tmp_path / "mine")
    again = VQVAE.from_pretrained(tmp_path / "mine", quantizer=make())
    frames = noise_frames(2, 5)
    assert torch.equal(again.encode(frames), vqvae.encode(frames))
    assert torch.equal(again.codebook, vqvae.codebook)
    assert again.fingerprint() == vqvae.fingerprint()


def test_a_saved_model_says_which_module_it_needs(tmp_path: Path) -> None:
    VQVAE(vqvae_config(), PLACE, quantizer=Signs()).save_pretrained(tmp_path / "mine")
    with pytest.raises(
        InputError, match=r"Signs is not one of vqvideo's: pass the module, VQVAE.from_pretrained\(path"
    ):
        VQVAE.from_pretrained(tmp_path / "mine")
    with pytest.raises(
        InputError, match=r"trained with OutsideConfig\(.*Signs', codebook_size=8.*is .*codebook_size=4"
    ):
        VQVAE.from_pretrained(tmp_path / "mine", quantizer=Signs(dim=2))
    with pytest.raises(InputError, match=r"trained with .*Signs.*the module passed is .*Foreign"):
        VQVAE.from_pretrained(tmp_path / "mine", quantizer=adapted())


def test_a_model_of_our_own_takes_no_module(tmp_path: Path) -> None:
    VQVAE(vqvae_config(), PLACE).save_pretrained(tmp_path / "ours")
    with pytest.raises(InputError, match="has the quantizer EMAVQ of its own: pass no module"):
        VQVAE.from_pretrained(tmp_path / "ours", quantizer=Signs())


def test_a_foreign_codebook_moves_in_training_passes_only() -> None:
    quantizer = adapted().train()
    z = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    before = quantizer.module.codes.clone()
    quantizer(z)
    quantizer.encode(z.clone().requires_grad_())
    quantizer.eval()(z.clone().requires_grad_())
    assert torch.equal(quantizer.module.codes, before)
    quantizer.train()(z.clone().requires_grad_())
    assert not torch.equal(quantizer.module.codes, before)


def test_trying_a_module_out_leaves_it_as_it_was() -> None:
    quantizer = adapted().train()
    before = quantizer.module.codes.clone()
    VQVAE(vqvae_config(), PLACE, quantizer=quantizer)
    assert torch.equal(quantizer.module.codes, before)
    assert quantizer.module.training


# ---------------------------------------------------------------- broken contracts


class Broken(Signs):
    """Breaks one promise."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        if how == "dim":
            self.dim = 5
        if how == "size":
            self.codebook_size = 3
        if how == "no size":
            self.codebook_size = None  # type: ignore[assignment]

    def forward(self, z: Tensor) -> Quantized:
        done = super().forward(z)
        values, indices, loss = done
        changed = {
            "values": done._replace(values=values[..., :2]),
            "type": done._replace(indices=indices.int()),
            "shape": done._replace(indices=indices[..., None]),
            "loss": done._replace(loss=loss[None]),
            "other": done._replace(values=values + 1),
        }
        return changed.get(self.how, done)

    def encode(self, z: Tensor) -> Tensor:
        if self.how == "dim":
            z = z @ torch.ones(3, 3)
        return super().encode(z)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("dim", r"Broken fails on latents \(2, 3, 5\)"),
        ("size", r"breaks the contract: codes \d..7 found, expected 0\.\.2"),
        ("no size", "codebook_size is None, expected a positive int"),
        ("values", r"values: found \(2, 3, 2\), expected \(2, 3, 3\)"),
        ("type", r"the type of the indices of forward: found torch.int32, expected torch.int64"),
        ("shape", r"the indices of forward: found \(2, 3, 1\), expected \(2, 3\)"),
        ("loss", r"the loss: found \(1,\), expected \(\)"),
        ("other", "decoded indices are other values than those of the forward pass"),
    ],
)
def test_a_module_that_breaks_the_contract_is_refused_by_the_promise_that_it_breaks(how: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        VQVAE(vqvae_config(), PLACE, quantizer=Broken(how))


def test_a_bare_module_is_sent_to_the_adapter() -> None:
    with pytest.raises(
        InputError, match=r"quantizer is Foreign, expected a subclass of .*: wrap other modules in .*Adapted"
    ):
        VQVAE(vqvae_config(), PLACE, quantizer=Foreign())


@pytest.mark.parametrize("changes", [{"dim": 6}, {"codebook_size": 2}])
def test_an_adapter_with_wrong_facts_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"Foreign (fails on latents|breaks the contract)"):
        VQVAE(vqvae_config(), PLACE, quantizer=adapted(**changes))


# ---------------------------------------------------------------- the field's modules


def test_modules_of_vector_quantize_pytorch_train_behind_the_adapter(tmp_path: Path) -> None:
    package = pytest.importorskip("vector_quantize_pytorch")

    def makers() -> list[Adapted]:
        vq = package.VectorQuantize(dim=4, codebook_size=16, rotation_trick=False)
        fsq = package.FSQ(levels=[5, 4, 3])
        return [
            Adapted(vq, dim=4, codebook_size=16, decode=vq.get_output_from_indices),
            Adapted(fsq, dim=3, codebook_size=60, decode=fsq.indices_to_codes),
        ]

    frames = noise_frames(2, 5)
    for number, (quantizer, fresh) in enumerate(zip(makers(), makers(), strict=True)):
        vqvae = VQVAE(vqvae_config(), PLACE, quantizer=quantizer).train()
        output = vqvae(frames)
        output.loss.backward()
        assert output.loss.isfinite()
        vqvae.eval().save_pretrained(tmp_path / str(number))
        again = VQVAE.from_pretrained(tmp_path / str(number), quantizer=fresh)
        assert torch.equal(again.encode(frames), vqvae.encode(frames))
