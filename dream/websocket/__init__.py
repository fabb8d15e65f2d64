"""The documented import paths of live updates: aliases of `dream.notifications`."""
