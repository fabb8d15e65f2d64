"""WebPs, with less memory than Pillow takes for a still picture."""

from __future__ import annotations

from PIL.WebPImagePlugin import WebPImageFile

__all__ = ["WebpFile"]


class WebpFile(WebPImageFile):
    """A WebP that frees the decoder of a still picture with its only frame.

    The decoder is made for animations and holds two canvases of 4 bytes a pixel, besides the pixels that it has handed
    over and the picture that is made of them.
    """

    def _get_next(self) -> tuple[bytes, int, int]:
        following = super()._get_next()
        if self.n_frames == 1:
            self._decoder = None
        return following
