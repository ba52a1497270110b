"""One server, one browser and a fresh page for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from browser.lab import Lab, browser, running_lab
from playwright.sync_api import Browser, Page, sync_playwright

from cwm_jupyter.config import Settings

#: errors that Notebook 7 logs of itself
_NOTEBOOKS_OWN = ("schema", "Command 'filebrowser:open-path' not registered")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, stack_settings: Settings) -> Iterator[Lab]:
    """JupyterLab, whose kernels find the shared stack."""
    environ = {name: value for name, value in os.environ.items() if name.startswith("CWM_")}
    environ["CWM_HOME"] = str(stack_settings.home)
    with running_lab(tmp_path_factory.mktemp("lab"), environ) as lab:
        yield lab


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser."""
    with sync_playwright() as playwright:
        started = browser(playwright)
        yield started
        started.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page of a context of its own; an error of its scripts fails the test."""
    context = chromium.new_context(viewport={"width": 1300, "height": 900})
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert [error for error in errors if not any(own in error for own in _NOTEBOOKS_OWN)] == []
