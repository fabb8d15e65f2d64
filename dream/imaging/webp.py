"""WebPs, with less memory than Pillow takes for a still picture."""

from __future__ import annotations

from PIL.WebPImagePlugin import WebPImageFile

__all__ = ["WebpFile"]


class WebpFile(WebPImageFile):
    """A WebP whose decoder ends with its last frame.

    The decoder is one for animations and holds two canvases, of 4 bytes a pixel each, besides the pixels that it has
    handed over and the picture that is made of them.
    """

    def _get_next(self) -> tuple[bytes, int, int]:
        following = super()._get_next()
        if self.n_frames == 1:
            self._decoder = None
        return following
