"""Everything of the product that crosses a process: tasks, arguments, states and events. Golden tests hold the JSON."""
