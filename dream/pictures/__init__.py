"""A dream's pictures for a web application: lists with `srcset` and HTML, private facts, originals and focal points.

    import dream.pictures

    for picture in dream.pictures.list(7):
        picture.url, picture.width_px, picture.srcset

The import loads neither Pillow nor boto3 nor SQLAlchemy, like that of `dream.producer`.
"""

from __future__ import annotations

from dream.messages.pictures import PhotoFacts
from dream.pictures.facts import photo_facts as facts
from dream.pictures.focus import set_focus
from dream.pictures.listing import Pictures
from dream.pictures.listing import list_pictures as list  # noqa: A004 (read as `dream.pictures.list`)
from dream.pictures.order import reorder
from dream.pictures.picture import Picture
from dream.pictures.retry import retry
from dream.producer import original_url

__all__ = ["PhotoFacts", "Picture", "Pictures", "facts", "list", "original_url", "reorder", "retry", "set_focus"]
