"""The Python API: what the magics do, for programs and notebooks.

Plain functions block, and Ctrl-C cancels what they do; those that begin with ``a`` are awaited,
from any event loop. All of them use the process's settings, see `cwm_jupyter.config`.
"""

from cwm_jupyter.api import frozen, live, stack, upkeep
from cwm_jupyter.api.frozen import *  # noqa: F403
from cwm_jupyter.api.live import *  # noqa: F403
from cwm_jupyter.api.stack import *  # noqa: F403
from cwm_jupyter.api.upkeep import *  # noqa: F403

__all__ = [*frozen.__all__, *live.__all__, *stack.__all__, *upkeep.__all__]
