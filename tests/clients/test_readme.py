"""What the README tells people to write into their editors, taken from there, against the daemon that it is for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.appliance import ROOT, Answer, environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.appliance import Appliance

README = (ROOT / "README.md").read_text()
BEFORE, AFTER = "def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n"
TEMPLATED = f"<|fim_prefix|>{BEFORE}<|fim_suffix|>{AFTER}<|fim_middle|>"


def section(title: str) -> str:
    """The text under the heading, as it has to be on this machine."""
    found = re.search(rf"^### {re.escape(title)}\n(.*?)(?=^##)", README, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def snippet(title: str, language: str) -> str:
    blocks = re.findall(rf"^```{language}\n(.*?)^```", section(title), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    return str(blocks[0])


def one(pattern: str, text: str) -> str:
    found = re.findall(pattern, text)
    assert len(found) == 1, (pattern, found)
    return str(found[0])


class Here:
    """Asks where the README says, with the token that it says."""

    def __init__(self, appliance: Appliance) -> None:
        self._appliance = appliance

    def ask(self, url: str, token: str, body: object = None) -> Answer:
        assert url.startswith("http://127.0.0.1:8012/"), url
        assert token == "TOKEN"
        path = url.removeprefix("http://127.0.0.1:8012")
        answer = self._appliance.request("GET" if body is None else "POST", path, body)
        assert answer.status == 200, answer.body
        return answer


@pytest.fixture
def here(running: Appliance) -> Here:
    return Here(running)


def llama_vim(here: Here) -> str:
    config = one(r"let g:llama_config = (\{.*\})", snippet("llama.vim", "vim")).replace("'", '"')
    settings = json.loads(config)
    assert set(settings) == {"endpoint_fim", "api_key"}
    body = {"input_prefix": BEFORE, "input_suffix": AFTER, "response_fields": ["content"]}
    return str(here.ask(settings["endpoint_fim"], settings["api_key"], body).json()["content"])


def llama_vscode(here: Here) -> str:
    settings = json.loads(snippet("llama.vscode", "json"))
    assert set(settings) == {"llama-vscode.endpoint", "llama-vscode.api_key"}
    url = settings["llama-vscode.endpoint"] + "/infill"
    body = {"input_prefix": BEFORE, "input_suffix": AFTER, "n_cmpl": 3}
    return str(here.ask(url, settings["llama-vscode.api_key"], body).json()["content"])


def continue_(here: Here) -> str:
    [model] = yaml.safe_load(snippet("Continue", "yaml"))["models"]
    assert (model["provider"], model["roles"]) == ("ollama", ["autocomplete"])
    shown = here.ask(model["apiBase"] + "api/show", model["apiKey"], {"name": model["model"]}).json()
    assert ".Suffix" in shown["template"]
    body = {"model": model["model"], "prompt": BEFORE, "suffix": AFTER, "stream": False}
    return str(here.ask(model["apiBase"] + "api/generate", model["apiKey"], body).json()["response"])


def zed(here: Here) -> str:
    settings = json.loads(snippet("Zed", "json"))["edit_predictions"]
    provider = settings[settings["provider"]]
    token = one(r"`ZED_OPEN_AI_COMPATIBLE_EDIT_PREDICTION_API_KEY=(\w+)`", section("Zed"))
    body = {"model": provider["model"], "prompt": TEMPLATED, "max_tokens": provider["max_output_tokens"]}
    return str(here.ask(provider["api_url"], token, body).json()["choices"][0]["text"])


def tabby(here: Here) -> str:
    server = tomllib.loads(snippet("Tabby's extensions", "toml"))["server"]
    assert here.ask(server["endpoint"] + "/v1/health", server["token"]).json()["model"]
    body = {"language": "python", "segments": {"prefix": BEFORE, "suffix": AFTER}}
    return str(here.ask(server["endpoint"] + "/v1/completions", server["token"], body).json()["choices"][0]["text"])


def minuet(here: Here) -> str:
    lua = snippet("minuet", "lua")
    model, tokens = one(r"model = '(.*)'", lua), int(one(r"max_tokens = (\d+)", lua))
    mode = one(r"rockfill = \{ mode = '(\w+)' \}", lua)
    body = {"model": model, "prompt": BEFORE, "suffix": AFTER, "max_tokens": tokens, "rockfill": {"mode": mode}}
    token = one(r"api_key = function\(\) return '(\w+)' end", lua)
    return str(here.ask(one(r"end_point = '(.*)'", lua), token, body).json()["choices"][0]["text"])


def twinny(here: Here) -> str:
    said = " ".join(section("twinny").split())
    words = (one(rf"{what} `([^`]*)`", said) for what in ("protocol", "hostname", "port", "path"))
    protocol, host, port, path = words
    assert one(r"provider `(\w+)`", said) == "ollama"
    body = {"model": one(r"model `([^`]*)`", said), "prompt": TEMPLATED, "stream": False}
    answer = here.ask(f"{protocol}://{host}:{port}{path}", one(r"API key `(\w+)`", said), body)
    return str(answer.json()["response"])


EDITORS: dict[str, Callable[[Here], str]] = {
    "llama.vim": llama_vim,
    "llama.vscode": llama_vscode,
    "Continue": continue_,
    "Zed": zed,
    "Tabby's extensions": tabby,
    "minuet": minuet,
    "twinny": twinny,
}


@pytest.mark.parametrize("editor", EDITORS)
def test_what_an_editor_is_told_works(here: Here, editor: str) -> None:
    assert EDITORS[editor](here).strip()


def test_every_editor_of_the_readme_is_tried() -> None:
    editors = re.search(r"^## Editors\n(.*?)^## ", README, re.MULTILINE | re.DOTALL)
    assert editors
    assert re.findall(r"^### (.*)$", editors[1], re.MULTILINE) == [*EDITORS, "Another one"]


def test_the_curl_command_works_as_it_stands(running: Appliance, tmp_path: Path) -> None:
    command = one(r"(?s)```sh\n(curl -H .*?)```", README).replace("127.0.0.1:8012", f"127.0.0.1:{running.port}")
    program = tmp_path / "rockfill"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m rockfill "$@"\n')
    program.chmod(0o755)
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ROCKFILL_STATE_DIR": str(running.state_dir)}
    done = subprocess.run(
        ["sh", "-c", command], env={**environment(), **variables}, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["choices"][0]["text"].strip()
