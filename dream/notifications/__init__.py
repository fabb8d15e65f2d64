"""Live events: stored in Redis streams by any process, read by gateways (`dream.notifications.subscribe`).

The import of this package is light: Redis is imported for the first event.
"""

from dream.notifications.publish import Publisher, send_image_update

__all__ = ["Publisher", "send_image_update"]
