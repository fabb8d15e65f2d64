"""The fault matrix: every step of the flow against everything that may break there (docs/reliability.md)."""
