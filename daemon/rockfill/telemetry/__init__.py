"""The machine's and the engine's figures over time."""
