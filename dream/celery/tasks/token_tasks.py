"""Tokens: the clean-up task."""

from dream.compat.tasks import cleanup_expired_tokens

__all__ = ["cleanup_expired_tokens"]
