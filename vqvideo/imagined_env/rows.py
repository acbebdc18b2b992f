"""A choice among the rows of a batch, known on the device and on the host alike."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Rows(NamedTuple):
    """Some rows of a batch of n.

    The device computes with its mask, Python decides by the host's: to ask the device costs a wait for all that it was
    given to do before.
    """

    mask: Tensor
    """(n,) bool, on the device."""
    host: NDArray[np.bool_]
    """The same."""

    @classmethod
    def read(cls, mask: Tensor) -> Rows:
        """The rows where a mask on the device is True. Waits for the device."""
        return cls(mask, mask.cpu().numpy())

    @classmethod
    def read_all(cls, masks: Tensor) -> list[Rows]:
        """As `read`, for several masks (m, n) in one wait."""
        return [cls(mask, host) for mask, host in zip(masks, masks.cpu().numpy(), strict=True)]

    @classmethod
    def of(cls, host: NDArray[np.bool_], device: torch.device) -> Rows:
        """The rows where a mask on the host is True."""
        return cls(torch.as_tensor(host, device=device), host)

    def __invert__(self) -> Rows:
        return Rows(~self.mask, ~self.host)

    def any(self) -> bool:
        """Whether there are any."""
        return bool(self.host.any())

    def all(self) -> bool:
        """Whether they are all n."""
        return bool(self.host.all())

    def numbers(self) -> Tensor:
        """Which ones they are, (r,) int64 in order, on the device."""
        # `nonzero` would ask the device how many; a stable sort puts them first and the host knows where they end.
        return self.mask.byte().argsort(descending=True, stable=True)[: int(self.host.sum())]
