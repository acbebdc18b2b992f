"""A window that shows frames while they are dreamt, by pygame, as the windows of Gymnasium's own environments are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqvideo.errors import InputError

_SIDE = 512
"""About the larger side of the window in pixels: frames of 64 x 64 are too small to watch."""


class Window:
    """Opens when the first frames are shown.

    Gymnasium's `HumanRendering` shows frames in their own size, and of a step of s frames the last one only.

    Args:
        fps: frames per second.

    Raises:
        InputError: pygame is not installed.
    """

    def __init__(self, fps: float) -> None:
        try:
            import pygame
        except ImportError as error:
            raise InputError(
                "render_mode='human' shows a window by pygame, which is not installed: pip install 'gymnasium[box2d]', "
                "or take render_mode='rgb_array'"
            ) from error
        self.pygame, self.fps, self.surface = pygame, fps, None  # type: tuple[Any, float, Any]
        self._clock = pygame.time.Clock()

    def show(self, frames: NDArray[np.uint8]) -> None:
        """Shows frames (t, h, w, 3), each for its time.

        Raises:
            InputError: there is no display.
        """
        for frame in frames:
            picture = self.pygame.surfarray.make_surface(frame.swapaxes(0, 1))
            surface = self.surface = self.surface or self._opened(picture.get_size())
            self.pygame.transform.scale(picture, surface.get_size(), surface)
            self.pygame.event.pump()
            self._clock.tick(self.fps)
            self.pygame.display.flip()

    def close(self) -> None:
        """Closes the window, if it is open."""
        if self.surface is not None:
            self.surface = None
            self.pygame.display.quit()

    def _opened(self, size: tuple[int, int]) -> Any:
        factor = max(1, round(_SIDE / max(size)))
        try:
            self.pygame.display.init()
            return self.pygame.display.set_mode((size[0] * factor, size[1] * factor))
        except self.pygame.error as error:
            raise InputError(
                f"render_mode='human' finds no display ({error}): without one, take render_mode='rgb_array'"
            ) from error
