"""A run of one of dream's own tasks: its row, its claim, its lease, and its outcome."""
