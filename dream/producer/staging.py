"""Uploaded bytes are put away before anything is recorded: those of a call all, or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dream.errors import DreamError
from dream.fault_points import step
from dream.log import get_logger
from dream.messages import EncodedFile, ImageFile

if TYPE_CHECKING:
    from dream.storage import StagingArea

__all__ = ["Staging"]

log = get_logger(__name__)

_MAX_NAME_LENGTH = 255


class Staging:
    """Puts the files of a call away, and takes them back.

    Parameters:
      area: where they wait for their run.
    """

    def __init__(self, area: StagingArea) -> None:
        self._area = area

    @step("stage")
    def put(self, image_files: Sequence[ImageFile]) -> list[EncodedFile]:
        """Store the bytes of all files, or of none.

        Raises:
          DreamError: they could not be stored.
        """
        staged: list[EncodedFile] = []
        try:
            for file in image_files:
                # One file's bytes at a time: a caller may read each from disk only when it is asked for.
                key = self._area.put(bytes(file["data"]))
                staged.append({"name": file["name"][-_MAX_NAME_LENGTH:], "staged": key})
        except DreamError:
            self.remove([file["staged"] for file in staged])
            raise
        return staged

    def remove(self, keys: Sequence[str]) -> None:
        """Take staged bytes back; what cannot be removed now is removed by the nightly sweep, for no row names it."""
        try:
            self._area.delete(keys)
        except DreamError as error:
            log.warning("staged_bytes_left", count=len(keys), error=str(error))
