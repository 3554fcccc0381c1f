"""The asynchronous Python client: the way to script the appliance from Python."""

from rockfill.client.http import Client

__all__ = ["Client"]
