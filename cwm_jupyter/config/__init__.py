"""Settings: what a user may choose, with defaults that are safe and work.

Later layers win: defaults, the user's and the project's file, IPython's configuration, environment
variables, and at last magics and arguments. The variable of a field is ``CWM_`` and its dotted name
in capitals, as in ``CWM_STACK_CHUNK_TOKENS`` for ``stack.chunk_tokens``; an empty variable counts
as unset.

`load` makes checked settings. A process shares one object: `get_settings`, `set_settings` and
`reset_settings`; `cwm_jupyter.changes` changes it while the process runs. Nothing here configures
logging beyond the level of the package's own logger.
"""

from cwm_jupyter.config.checks import check_url
from cwm_jupyter.config.layers import load
from cwm_jupyter.config.schema import (
    LimitSettings,
    LMCacheSettings,
    SecuritySettings,
    Settings,
    StackSettings,
    StorageSettings,
    VLLMSettings,
)
from cwm_jupyter.config.shared import get_settings, reset_settings, set_settings

__all__ = [
    "LMCacheSettings",
    "LimitSettings",
    "SecuritySettings",
    "Settings",
    "StackSettings",
    "StorageSettings",
    "VLLMSettings",
    "check_url",
    "get_settings",
    "load",
    "reset_settings",
    "set_settings",
]
