"""The scheduler: periodic tasks, the sweep that finds lost work, and the removal of orphans and old rows."""
