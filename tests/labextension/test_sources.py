"""The JupyterLab extension's own checks and tests, and what its sources and ours must agree on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import plotly
import pytest
from extension import SOURCES, jlpm, node_fits

import cwm_jupyter


@pytest.fixture(scope="module")
def package() -> dict[str, Any]:
    """package.json."""
    read: dict[str, Any] = json.loads((SOURCES / "package.json").read_text())
    return read


@pytest.mark.parametrize(
    "tool",
    [
        pytest.param(("tsc", "--noEmit", "-p", "tsconfig.test.json"), id="types"),
        pytest.param(("prettier", "--check", "."), id="format"),
        pytest.param(("vitest", "run"), id="units"),
    ],
)
def test_it_passes(tool: tuple[str, ...]) -> None:
    jlpm(*tool)


def test_its_version_is_ours(package: dict[str, Any]) -> None:
    assert package["version"] == cwm_jupyter.__version__


def test_charts_are_drawn_by_the_plotly_that_draws_the_notebook_s(package: dict[str, Any]) -> None:
    bundle = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    with bundle.open(encoding="utf-8") as script:
        found = re.search(r"plotly\.js v([\d.]+)", script.read(500))
    assert found is not None
    assert package["dependencies"]["plotly.js-basic-dist-min"] == found[1]


def test_the_lock_names_packages_and_no_hosts() -> None:
    assert "://" not in (SOURCES / "yarn.lock").read_text()


@pytest.mark.parametrize(
    ("version", "fits"),
    [
        ("v18.20.4", False),
        ("v20.18.3", False),
        ("v20.19.0", True),
        ("v21.7.3", False),
        ("v22.11.0", False),
        ("v22.12.0", True),
        ("v24.19.0", True),
        ("not a version", False),
    ],
)
def test_which_node_can_build_it(tmp_path: Path, version: str, fits: bool) -> None:
    node = tmp_path / "node"
    node.write_text(f"#!/bin/sh\necho {version}\n")
    node.chmod(0o755)
    assert node_fits(str(tmp_path)) is fits


def test_without_node_there_is_none_that_fits(tmp_path: Path) -> None:
    assert not node_fits(str(tmp_path))
