"""The quantizers under their public name; they live in `vqvideo.models.quantizers`."""

from vqvideo.models import quantizers as _quantizers
from vqvideo.models.quantizers import *

__all__ = _quantizers.__all__
