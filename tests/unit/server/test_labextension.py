"""What the JupyterLab extension was written for is what the server offers."""

from __future__ import annotations

import json
import re
from pathlib import Path

from cwm_jupyter.server.openapi import describe
from cwm_jupyter.server.routes.about import API_VERSION
from cwm_jupyter.server.table import TABLE

_EXTENSION = Path(__file__).parents[3] / "labextension"


def test_the_types_are_made_of_the_present_description() -> None:
    written = json.loads((_EXTENSION / "openapi.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(describe(TABLE))), (
        "Write them anew: cd labextension; python openapi.py; jlpm types"
    )


def test_both_speak_the_same_version() -> None:
    client = (_EXTENSION / "src" / "api" / "client.ts").read_text(encoding="utf-8")
    found = re.search(r"API_VERSION = (\d+);", client)
    assert found is not None
    assert int(found[1]) == API_VERSION
