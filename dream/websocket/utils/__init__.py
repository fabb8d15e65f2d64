"""`send_image_update`."""

from dream.websocket.utils.notifications import send_image_update

__all__ = ["send_image_update"]
