"""From a caller's request to its text: whose turn it is, the engine's run, and what becomes of its output."""
