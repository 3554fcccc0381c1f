"""What is fetched: decided beforehand (`plan`), then done one at a time (`jobs`)."""
