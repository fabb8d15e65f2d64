"""The clock: what runs when, the sweep that finds lost work, and the nightly removal of leftovers."""
