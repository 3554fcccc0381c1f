"""The engine's lifecycle: a pure state table, the child process, and the one task that drives both."""
