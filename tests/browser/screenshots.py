"""``make screenshots``: every view at 1280 and 390 px, light and dark, on a simulated board.

They go to ``build/screenshots``; those of the README to ``packaging/screenshots``. The board's last minutes are made up
here, since a real board has been running for a while when somebody looks.
"""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import expect, sync_playwright

from tests.appliance import ROOT
from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.browser.driving import OK, Scripted, answer, ghost, sign_in, write
from tests.browser.stage import Stage
from tests.fakes.boards import NPU_HZ

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser, Page

OUT = ROOT / "build" / "screenshots"
README = ROOT / "packaging" / "screenshots"
IN_README = {"complete-1280-light": "complete", "models-1280-light": "models", "board-1280-dark": "board"}
README_HEIGHTS = {"models": 620}  # the rest is of something else
WIDTHS = {1280: 800, 390: 844}
GB = 10**9

CODE = '''import json
from pathlib import Path


def load_settings(path: Path) -> dict[str, str]:
    """The settings in `path`; an empty file has none."""
    '''
REST = """


settings = load_settings(Path("settings.json"))
"""
OFFER = ('text = path.read_text(encoding="utf-8")\n    ', "return json.loads(text)", " if text.strip()", " else {}")


def main() -> None:
    assert CHROMIUM is not None, "chromium is not installed"
    OUT.mkdir(parents=True, exist_ok=True)
    README.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, Stage(Path(directory)) as stage, sync_playwright() as playwright:
        stage.npu(87, 58.2)
        stage.appliance.control.set(speed="codegemma-2b-rk3588")
        stage.appliance.complete("def add(a, b):\n    return ", "\n")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for width, height in WIDTHS.items():
            for scheme in ("light", "dark"):
                _all_views(browser, stage, width, height, scheme)
        browser.close()


def _all_views(browser: Browser, stage: Stage, width: int, height: int, scheme: Any) -> None:
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    history = _history()
    scripted = answer(page, {"stats.history": [{"success": True, "result": history}]})
    scripted.replace["stats.sampled"] = _last_sample(history["columns"])
    engine = {**stage.appliance.command("engine.get"), "type": "engine.changed", "topic": "engine"}
    scripted.replace["engine.changed"] = {**engine, "tokens_per_second": 10.4}
    sign_in(page, stage.appliance)
    shots: dict[str, Callable[[Page, Scripted], None]] = {
        "complete": _complete,
        "models": _models,
        "board": _board,
        "connect": _connect,
        "sign-in": _sign_in,
    }
    for name, prepare in shots.items():
        prepare(page, scripted)
        stem = f"{name}-{width}-{scheme}"
        page.screenshot(path=OUT / f"{stem}.png")
        if stem in IN_README:
            clip: Any = {"x": 0, "y": 0, "width": width, "height": README_HEIGHTS.get(name, height)}
            page.screenshot(path=README / f"{IN_README[stem]}.png", clip=clip)
        tall = page.evaluate("document.documentElement.scrollHeight")
        if tall > height:
            page.set_viewport_size({"width": width, "height": tall})
            page.wait_for_timeout(200)
            page.screenshot(path=OUT / f"{stem}-whole.png")
            page.set_viewport_size({"width": width, "height": height})
    context.close()


def _to(page: Page, view: str) -> None:
    page.evaluate("view => { location.hash = view; scrollTo(0, 0); }", view)
    expect(page.locator(f"#{view}")).to_be_visible()


def _complete(page: Page, scripted: Scripted) -> None:
    _to(page, "complete")
    write(page, CODE + REST, len(CODE))
    timings = {"first_token_ms": 412.0, "decode_ms": 2310.0, "prompt_tokens": 182, "generated_tokens": 24}
    trimmed = {"prefix_chars": 0, "suffix_chars": 0, "files": 0}
    done = {"type": "complete.done", "finish_reason": "stop", "trimmed": trimmed, "timings": timings}
    deltas = [{"type": "complete.delta", "text": text} for text in OFFER]
    scripted.answers["complete.start"] = [OK, *deltas, {**done, "reused_tokens": 161}]
    page.get_by_label("Fill").select_option("several lines")
    page.keyboard.press("Tab")
    page.locator(".cm-content").focus()
    page.keyboard.press("Control+Space")
    expect(ghost(page)).to_contain_text("json.loads")
    page.wait_for_timeout(600)


def _models(page: Page, scripted: Scripted) -> None:
    scripted.answers["models.variants"] = [{"success": True, "result": _variants(page)}]
    _to(page, "models")
    page.get_by_role("button", name="Variants of CodeGemma 2B").click()
    expect(page.get_by_role("row", name="recommended")).to_be_visible()
    page.mouse.move(700, 5)
    page.wait_for_timeout(400)


def _board(page: Page, scripted: Scripted) -> None:
    _to(page, "board")
    expect(page.locator("#chart-npu .legend")).to_contain_text("Core 0")
    expect(page.get_by_role("region", name="Doctor").get_by_role("status")).to_contain_text("as of", timeout=40_000)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(1500)


def _connect(page: Page, scripted: Scripted) -> None:
    _to(page, "connect")
    page.get_by_role("tab", name="Continue").click()
    page.wait_for_timeout(300)


def _sign_in(page: Page, scripted: Scripted) -> None:
    page.locator("#logout").evaluate("button => button.click()")
    expect(page.locator("#token")).to_be_focused()
    page.wait_for_timeout(300)


def _variants(page: Page) -> dict[str, Any]:
    """What the appliance says of CodeGemma's variants, with the sizes that they have in earnest."""
    asked = page.evaluate(
        """async () => {
            const base = document.querySelector('script[type=module]').src.replace('main.js', '');
            return (await import(base + 'appliance.js')).appliance.call('models.catalogue');
        }"""
    )
    assert asked["models"]
    sizes = {"w8a8": 3.58, "w8a8_g512": 3.62, "w8a8_g256": 3.66, "w8a8_g128": 3.73}
    rates = {"w8a8": 10.4, "w8a8_g512": 8.5, "w8a8_g256": None, "w8a8_g128": 5.2}
    tails = {"w8a8": "1-hybrid-ratio-0.5", "w8a8_g512": "0-hybrid-ratio-1.0"}
    tails |= {"w8a8_g256": "0-hybrid-ratio-1.0", "w8a8_g128": "1-hybrid-ratio-0.0"}
    runtime = {"version": "1.2.3", "installed": True, "reason": "the best for files of converter 1.1.2"}
    variants: list[dict[str, Any]] = [
        {
            "file": f"codegemma-2b-rk3588-{name}-opt-{tail}.rkllm",
            "model": "codegemma-2b",
            "engine": "rkllm",
            "quantisation": name,
            "optimisation": int(tail[0]),
            "hybrid_ratio": float(tail[-3:]),
            "platform": "rk3588",
            "converter_version": "1.1.2",
            "size_bytes": int(sizes[name] * GB),
            "fits": True,
            "problems": [],
            "expected_tokens_per_second": rates[name],
            "measured": False,
            "speed_source": "Rockchip's figure for Gemma2 2B, at full clocks",
            "recommended": name == "w8a8",
            "reason": "fits this machine, w8a8 is the fastest kind" if name == "w8a8" else "",
            "runtime": runtime,
            "evaluations": [],
        }
        for name, tail in tails.items()
    ]
    licence = {"id": "gemma", "name": "Gemma Terms of Use", "url": "https://ai.google.dev/gemma/terms"}
    return {
        "repository": "c01zaut/codegemma-2b-rk3588-1.1.2",
        "commit": "c70012a4",
        "gated": False,
        "licence": {**licence, "to_be_accepted": True, "accepted": True},
        "variants": variants,
    }


def _history() -> dict[str, Any]:
    """Five minutes in which somebody typed now and then."""
    now = time.time()
    times = [round(now - 300 + second, 1) for second in range(300)]
    work = [
        max(0.0, math.sin((second - 300) / 17 + 1) + 0.4 * math.sin((second - 300) / 5.3 + 1)) for second in range(300)
    ]
    busy = [value > 0.35 for value in work]
    columns: dict[str, list[Any]] = {
        "time_s": times,
        "npu.load_percent.0": [round(35 + 45 * value) if on else 0 for value, on in zip(work, busy, strict=True)],
        "npu.load_percent.1": [round(20 + 40 * value) if on else 0 for value, on in zip(work, busy, strict=True)],
        "npu.load_percent.2": [round(18 + 38 * value) if on else 0 for value, on in zip(work, busy, strict=True)],
        "npu.temp_celsius": [round(49 + 5 * math.sin(second / 40) + second / 60, 1) for second in range(300)],
        "cpu.temp_celsius": [round(50 + 4 * math.sin(second / 37) + second / 70, 1) for second in range(300)],
        "gpu.temp_celsius": [round(46 + 2 * math.sin(second / 45) + second / 90, 1) for second in range(300)],
        "npu.freq_hz": [NPU_HZ[-1] if on else NPU_HZ[0] for on in busy],
        "ddr.freq_hz": [2_112_000_000 if on else 528_000_000 for on in busy],
        "cpu.cluster_freq_hz.0": [1_800_000_000 if on else 816_000_000 for on in busy],
        "cpu.cluster_freq_hz.1": [2_400_000_000 if on else 408_000_000 for on in busy],
        "cpu.cluster_load_percent.0": [round(12 + 9 * value, 1) for value in work],
        "cpu.cluster_load_percent.1": [
            round(30 + 35 * value, 1) if on else 3 for value, on in zip(work, busy, strict=True)
        ],
        "ram.used_bytes": [3_980_000_000 + 300_000 * second for second in range(300)],
        "worker.rss_bytes": [2_790_000_000] * 300,
        "daemon.rss_bytes": [61_000_000] * 300,
        "engine.tokens_per_second": [round(10.1 + 0.4 * math.sin(second / 9), 2) for second in range(300)],
        "engine.first_token_s": [round(0.41 + 0.12 * math.sin(second / 11), 3) for second in range(300)],
        "queue.depth": [1 if on and second % 29 < 4 else 0 for second, on in enumerate(busy)],
    }
    return {"resolution": "seconds", "columns": columns}


def _last_sample(columns: dict[str, list[Any]]) -> dict[str, Any]:
    """The end of the history as the event that comes with each sample: lists for figures that have several parts."""
    figures: dict[str, Any] = {"cpu.load_percent": 24.0, "ram.total_bytes": 16 * 2**30}
    for name, values in columns.items():
        key, _, part = name.rpartition(".")
        if part.isdigit():
            figures.setdefault(key, []).append(values[-1])
        elif name != "time_s":
            figures[name] = values[-1]
    clusters = ["little", "big"]
    event = {"type": "stats.sampled", "topic": "stats", "clusters": clusters, "figures": figures}
    return {**event, "time_s": columns["time_s"][-1] + 1}


if __name__ == "__main__":
    main()
