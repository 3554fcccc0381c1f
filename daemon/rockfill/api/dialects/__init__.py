"""The ways in which editors and scripts ask for completions."""
