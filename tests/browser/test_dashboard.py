"""The cache dashboard in a real browser, over a home with windows and no stack."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench import Bench
from browser.lab import PATIENCE_MS, Lab, running_lab, serious, shoot, use_dark
from playwright.sync_api import Page, expect


async def _fill(folder: Path) -> None:
    bench = Bench(folder)
    await bench.frozen("paper", "What is a KV cache? " * 12, "And what is a prefill? " * 6)
    await bench.manager.branches.clone("paper", "paper-critique", tags=["reading"])
    await bench.manager.thaw("paper", as_session="paper-again")
    await bench.manager.say("paper-again", "What would one measure? " * 5)
    await bench.manager.freeze("paper-measures", "paper-again", tags=["reading"])
    await bench.frozen("letter", "Write a letter to the editor. " * 10)
    await bench.manager.keeping.edit_window("letter", note="To be sent on Monday.")
    manifest = bench.library.manifest(bench.window("letter"))
    bench.stack.vault.folder.content(manifest.refs[-1].digest).unlink()
    await bench.manager.verify("letter")
    await bench.reconnect()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab over a home with some windows, one of them damaged."""
    folder = tmp_path_factory.mktemp("dashboard")
    asyncio.run(_fill(folder))
    environ = {"CWM_HOME": str(folder / "home"), "CWM_STORAGE_VAULT_DIR": str(folder / "vault")}
    with running_lab(folder / "lab", environ) as lab:
        yield lab


def opened(lab: Lab, page: Page, **args: Any) -> Any:
    """Open Lab and the dashboard in it."""
    lab.open_lab(page)
    page.evaluate(
        "args => void window.jupyterapp.commands.execute('cwm:open-dashboard', args)", args
    )
    dashboard = page.locator(".cwm-Dashboard")
    expect(dashboard.locator(".cwm-Tile").first).to_be_visible()
    return dashboard


def drawn(dashboard: Any, title: str) -> Any:
    """The picture of a section, once there is one."""
    picture = dashboard.get_by_role("region", name=title, exact=True)
    expect(picture.locator(".main-svg").first).to_be_visible(timeout=PATIENCE_MS)
    return picture


def test_it_shows_what_is_kept_and_what_is_not_known(filled: Lab, page: Page) -> None:
    dashboard = opened(filled, page)
    tiles = dashboard.locator(".cwm-Tile")
    expect(tiles.filter(has_text="Windows")).to_contain_text("4")
    expect(tiles.filter(has_text="Windows")).to_contain_text("1 damaged")
    expect(tiles.filter(has_text="Hit rate")).to_contain_text("no stack is running")
    drawn(dashboard, "Bytes by window")
    drawn(dashboard, "Thaw against prefill")
    expect(dashboard.get_by_role("region", name="Cache by tier")).to_contain_text(
        "unavailable", timeout=20_000
    )
    expect(dashboard.locator(".cwm-Dashboard-head")).to_contain_text("no stack")
    expect(dashboard.locator(".cwm-Section", has_text="Latest changes")).to_contain_text("freeze")
    shoot(page, "dashboard-light")
    assert serious(page, ".cwm-Dashboard") == []
    use_dark(page)
    shoot(page, "dashboard-dark")
    assert serious(page, ".cwm-Dashboard") == []


def test_a_window_in_detail(filled: Lab, page: Page) -> None:
    dashboard = opened(filled, page, window="paper")
    detail = dashboard.locator(".cwm-Detail")
    expect(detail.locator(".cwm-Detail-name")).to_have_text("paper")
    expect(detail).to_contain_text("on disk, as frozen")
    expect(drawn(detail, "Latest thaw")).to_contain_text("Thaw into paper-again")
    detail.scroll_into_view_if_needed()
    shoot(page, "dashboard-detail")
    opened_again = opened(filled, page, window="letter")
    expect(opened_again.locator(".cwm-Detail")).to_contain_text("1 missing")
    expect(opened_again.get_by_role("button", name="Repair")).to_be_enabled()
    shoot(page, "dashboard-damaged")


def test_pictures_are_updated_in_place(filled: Lab, page: Page) -> None:
    dashboard = opened(filled, page)
    picture = drawn(dashboard, "Family of windows")
    picture.evaluate("node => node.querySelector('.cwm-Chart-plot').dataset.mark = 'same'")
    filled.api(page, "POST", "windows/paper/clone", {"name": "paper-late"})
    expect(picture).to_contain_text("paper-late", timeout=30_000)
    assert picture.locator(".cwm-Chart-plot").get_attribute("data-mark") == "same"
    filled.api(page, "DELETE", "windows/paper-late")
    expect(picture).not_to_contain_text("paper-late", timeout=30_000)


def test_a_reload_keeps_the_window(filled: Lab, page: Page) -> None:
    dashboard = opened(filled, page, window="letter")
    expect(dashboard.locator(".cwm-Detail-name")).to_have_text("letter")
    page.wait_for_timeout(2000)  # Lab saves its layout after a while
    page.goto(f"{filled.url}/lab?token={filled.token}")
    expect(page.locator(".cwm-Detail-name")).to_have_text("letter", timeout=PATIENCE_MS)


def test_updates_leave_nothing_behind(filled: Lab, page: Page) -> None:
    dashboard = opened(filled, page, window="paper")
    drawn(dashboard, "Family of windows")
    profiler = page.context.new_cdp_session(page)
    profiler.send("Performance.enable")
    page.wait_for_timeout(5000)  # Lab itself is still starting

    def after(updates: int) -> dict[str, float]:
        page.evaluate(
            """async updates => {
                const { sections } = window.jupyterapp.shell.currentWidget.content;
                for (let i = 0; i < updates; i++) {
                    await Promise.all(sections.map(section => section.refresh()));
                }
            }""",
            updates,
        )
        for _ in range(3):  # one leaves some
            profiler.send("HeapProfiler.collectGarbage")
        metrics = profiler.send("Performance.getMetrics")["metrics"]
        return {metric["name"]: metric["value"] for metric in metrics}

    before = after(50)
    now = after(150)
    assert now["JSEventListeners"] - before["JSEventListeners"] < 50  # fewer than updates
    assert now["Nodes"] - before["Nodes"] < 50
    assert now["JSHeapUsedSize"] - before["JSHeapUsedSize"] < 3_000_000  # 0.5 MB, measured


def test_it_is_quiet_once_it_is_closed(filled: Lab, page: Page) -> None:
    opened(filled, page)
    asked: list[str] = []
    page.on(
        "request", lambda request: asked.append(request.url) if "/cwm/" in request.url else None
    )
    page.evaluate("window.jupyterapp.shell.currentWidget.dispose()")
    expect(page.locator(".cwm-Dashboard")).to_have_count(0)
    page.wait_for_timeout(3000)  # the channel lingers for two seconds
    asked.clear()
    page.wait_for_timeout(7000)
    assert asked == []


def test_it_fits_a_narrow_place(filled: Lab, page: Page) -> None:
    dashboard = opened(filled, page, window="paper")
    page.evaluate("window.jupyterapp.shell.collapseLeft()")
    page.set_viewport_size({"width": 420, "height": 900})
    drawn(dashboard, "Bytes by window")
    page.wait_for_timeout(500)
    width = dashboard.evaluate("node => [node.scrollWidth, node.clientWidth]")
    assert width[0] <= width[1]
    shoot(page, "dashboard-narrow")
