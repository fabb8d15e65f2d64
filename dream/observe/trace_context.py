"""Names of the fields that carry a trace in messages and events, in the form of the W3C's Trace Context."""

from __future__ import annotations

__all__ = ["PREVIOUS_RUN", "TRACEPARENT", "TRACESTATE"]

#: The span that sent the message or the event.
TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
#: The last run of the message, to which its next run has a link.
PREVIOUS_RUN = "previous_run"
