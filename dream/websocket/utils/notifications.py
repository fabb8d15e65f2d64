"""`send_image_update`."""

from dream.notifications import send_image_update

__all__ = ["send_image_update"]
