"""Video files that the tests wrote, read back."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np


def read_video(path: Path) -> np.ndarray:
    """All frames of a video file, (t, h, w, 3) uint8."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
