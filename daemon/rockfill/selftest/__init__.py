"""What a model and its runtime really do on this machine: the only way an inference becomes a fact."""
