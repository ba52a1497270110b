"""Write the API's description beside this file; `jlpm types` makes TypeScript's types of it."""

import json
from pathlib import Path

from cwm_jupyter.server.openapi import describe
from cwm_jupyter.server.table import TABLE

text = json.dumps(describe(TABLE), indent=1, ensure_ascii=False) + "\n"
Path(__file__).with_name("openapi.json").write_text(text, encoding="utf-8")
