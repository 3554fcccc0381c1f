"""What fits what: models, runtimes and boards. Pure: bytes and values in, verdicts out."""
