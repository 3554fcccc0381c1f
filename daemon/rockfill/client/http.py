"""A connection to a running appliance over HTTP."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp

from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping
    from typing import Self

CONNECT_TIMEOUT_S = 5.0


class Client:
    """Use it as an async context manager. Every method raises the appliance's own `Problem`, or `no_daemon`."""

    def __init__(self, url: str, token: str | None) -> None:
        """`url` as ``http://HOST:PORT``."""
        self._url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            trust_env=False,  # the appliance is on this network; a proxy has no business between
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._session.close()

    async def command(self, type_: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run the command `type_` and return its result."""
        async with self._post(f"/api/command/{type_}", dict(parameters or {})) as response:
            answer = await _json(response)
            if not isinstance(answer, dict) or not isinstance(answer.get("result"), dict):
                raise _problem({}, response.status)
            result: dict[str, Any] = answer["result"]
            return result

    async def complete(
        self, prefix: str, suffix: str | None, *, mode: str = "raw", max_tokens: int = 64
    ) -> AsyncIterator[str]:
        """The completion between `prefix` and `suffix`, as it comes. `mode` is ``raw``, ``line`` or ``block``."""
        body: dict[str, Any] = {"prompt": prefix, "max_tokens": max_tokens, "stream": True, "rockfill": {"mode": mode}}
        if suffix is not None:
            body["suffix"] = suffix
        async with self._post("/v1/completions", body) as response:
            async for event in _events(response):
                if "error" in event:
                    raise _problem(event, 500)
                for choice in event["choices"]:
                    if choice["text"]:
                        yield choice["text"]

    @asynccontextmanager
    async def _post(self, path: str, body: object) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        try:
            async with self._session.post(self._url + path, json=body) as response:
                if response.status != 200:
                    raise _problem(await _json(response), response.status)
                yield response
        except (aiohttp.ClientConnectionError, TimeoutError) as error:
            raise Problem(
                Code.NO_DAEMON,
                f"No Rockfill answers at {self._url} ({type(error).__name__}: {error}).",
                "Start it with `rockfill serve` or `systemctl start rockfill`, or set ROCKFILL_URL.",
            ) from None
        except (aiohttp.InvalidURL, ValueError) as error:
            raise Problem(
                Code.INVALID_VALUE, f'"{self._url}" is no address.', "Write it like http://rock5.local:8012."
            ) from error
        except aiohttp.ClientError:
            raise Problem(Code.NO_DAEMON, "The connection to Rockfill broke off.", "Ask again.") from None


async def _events(response: aiohttp.ClientResponse) -> AsyncGenerator[dict[str, Any], None]:
    async for line in response.content:
        if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
            try:
                event = json.loads(line[6:])
            except ValueError:
                raise _problem({}, response.status) from None
            yield event


async def _json(response: aiohttp.ClientResponse) -> Any:
    try:
        return json.loads(await response.read())
    except ValueError:
        return {}


def _problem(answer: Any, status: int) -> Problem:
    """The appliance's problem out of either shape of an error."""
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return Problem(
            Code.INTERNAL_ERROR, f"Something that is not Rockfill answered ({status}).", "Check the address."
        )
    code = error.get("code")
    known = Code(code) if code in set(Code) else Code.INTERNAL_ERROR
    return Problem(known, str(error.get("message", "")), str(error.get("advice", "")))
