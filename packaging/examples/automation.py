"""Rockfill from Python: pause it while the board is hot, and say what happens.

ROCKFILL_URL=http://rock5.local:8012 ROCKFILL_TOKEN=… python automation.py
"""

import asyncio
import os

from rockfill.client import Client

HOT_CELSIUS = 80


async def main() -> None:
    async with Client(os.environ["ROCKFILL_URL"], os.environ["ROCKFILL_TOKEN"]) as rockfill:
        print((await rockfill.call("engine.get"))["state"], flush=True)
        print(await rockfill.complete("def add(a, b):\n    return ", "\n").text(), flush=True)
        async for event in rockfill.subscribe(["stats", "events"], interval_s=10):
            if event["topic"] == "events":
                print(event["type"], event.get("model", ""), flush=True)
            elif (event["figures"]["npu.temp_celsius"] or 0) > HOT_CELSIUS:
                await rockfill.call("engine.pause")


asyncio.run(main())
