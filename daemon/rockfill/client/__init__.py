"""The asynchronous Python client: the way to script the appliance from Python.

async with Client("http://rock5.local:8012", token) as rockfill:
    print(await rockfill.call("engine.get"))
    async for text in rockfill.complete("def add(a, b):\\n    return ", "\\n"):
        print(text, end="")
    async for event in rockfill.subscribe(["stats", "events"]):
        print(event)
"""

from rockfill.client.connection import Client, Completion

__all__ = ["Client", "Completion"]
