"""The models on disk."""
