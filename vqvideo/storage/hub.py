"""Models that go to disk and to the Hugging Face Hub: `save_pretrained`, `from_pretrained`, `push_to_hub`."""

from __future__ import annotations

import re
import shutil
import tempfile
from abc import abstractmethod
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import nn

from vqvideo.errors import InputError
from vqvideo.storage import files
from vqvideo.storage.checkpoint import config_errors, fingerprint, load_model, model_tensors, save_model
from vqvideo.storage.formats import SavedModel

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")

_CARD = """---
library_name: vqvideo
tags: [vqvideo, video, vq-vae, world-model]
---

# A vqvideo {kind}

```python
from vqvideo import {name}

model = {name}.from_pretrained("this repository")
```
"""


class HubModel(nn.Module, ModelHubMixin):
    """A model that is rebuilt from JSON and tensors; its folder holds both and a manifest of their digests."""

    kind: str
    """What `config.json` says the folder holds."""
    recorded: dict[str, Any] | None = None
    """`identity` as it was when the model was first saved; None for one that never was, or before format 4."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """JSON that rebuilds the model, without its weights."""

    @classmethod
    @abstractmethod
    def from_saved(cls, saved: SavedModel, source: str, quantizer: nn.Module | None = None) -> Self:
        """The model that `config` and tensors describe; `source` names them in errors. `quantizer`: see
        `from_pretrained`.
        """

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def fingerprint(self) -> str:
        """SHA-256 of `identity` and weights: other weights make another one, a later version of vqvideo does not."""
        return fingerprint(self.identity(), model_tensors(self))

    def identity(self) -> dict[str, Any]:
        """What the fingerprint is taken over, beside the weights. It is recorded with the model, because what follows
        from settings changes whenever a class gets another default, or one more setting.
        """
        return self.own_identity() if self.recorded is None else self.recorded

    def own_identity(self) -> dict[str, Any]:
        """The `identity` of a model that was never saved, or saved before format 4: to those it must give the same one
        for ever, whatever settings and defaults are added.
        """
        return self.config()

    def record(self) -> dict[str, Any]:
        """What `config.json` holds: `config` and `identity`."""
        return self.config() | {"identity": self.identity()}

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        **hub: Any,
    ) -> str | None:
        """Writes the model folder, whole or not at all. Weights are written in the precision that the model has.

        Args:
            save_directory: a new folder, an empty one or an older model's, which is replaced.
            repo_id: where to push to; by default the folder's name.
            push_to_hub: also uploads the folder.
            hub: further arguments of `push_to_hub`.
        """
        folder = Path(save_directory)
        card = _CARD.format(kind=self.kind, name=type(self).__name__).encode()
        save_model(folder, self.kind, self.record(), model_tensors(self), extra={"README.md": card})
        if push_to_hub:
            return self.push_to_hub(repo_id or folder.name, **hub)
        return None

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, quantizer: nn.Module | None = None, **hub: Any
    ) -> Self:
        """Loads a model folder, in eval mode and frozen, in single precision whatever it was saved in: go on with
        `.to(torch.bfloat16)` for half of the memory.

        Args:
            pretrained_model_name_or_path: a local folder or a repository on the Hub such as "someone/world".
            quantizer: the module, for a model whose quantizer is none of vqvideo's own; it receives the tensors.
            hub: arguments of `huggingface_hub.snapshot_download` (revision, token, cache_dir, ...).

        Raises:
            InputError: no such folder or repository, another kind of model, a damaged file.
        """
        name = str(pretrained_model_name_or_path)
        if (folder := files.standing(name)).is_dir():
            return cls._load(folder, quantizer)
        if not _REPOSITORY.fullmatch(name):
            raise InputError(f"{name}: no such folder, expected a saved {cls.kind}{cls.alternatives(name)}")
        try:
            snapshot = snapshot_download(name, **hub)
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{name}: no such folder here, and the Hub did not give it either: {reason}") from error
        with tempfile.TemporaryDirectory() as temporary:
            # The Hub's cache is made of links, which the loader refuses.
            shutil.copytree(snapshot, temporary, dirs_exist_ok=True)
            return cls._load(Path(temporary), quantizer)

    @classmethod
    def alternatives(cls, name: str) -> str:
        """What else a `name` that is neither folder nor repository could have been; the end of an error."""
        return ""

    @classmethod
    def _load(cls, folder: Path, quantizer: nn.Module | None) -> Self:
        saved = load_model(folder, cls.kind)
        with config_errors(folder):
            return cls.from_saved(saved, str(folder), quantizer).eval().requires_grad_(False)
