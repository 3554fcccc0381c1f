"""The Hub, where models come from: what is there, and fetching it."""
