"""The Python API: what the magics do, for programs and notebooks.

Plain functions block, and Ctrl-C cancels what they do; those that begin with ``a`` are awaited,
from any event loop. All of them use the process's settings, see `cwm_jupyter.config`.
"""

from cwm_jupyter.api import (
    archive,
    audit,
    branches,
    configuration,
    frozen,
    keeping,
    live,
    pictures,
    policies,
    stack,
    turns,
    upkeep,
)
from cwm_jupyter.api.archive import *  # noqa: F403
from cwm_jupyter.api.audit import *  # noqa: F403
from cwm_jupyter.api.branches import *  # noqa: F403
from cwm_jupyter.api.configuration import *  # noqa: F403
from cwm_jupyter.api.frozen import *  # noqa: F403
from cwm_jupyter.api.keeping import *  # noqa: F403
from cwm_jupyter.api.live import *  # noqa: F403
from cwm_jupyter.api.pictures import *  # noqa: F403
from cwm_jupyter.api.policies import *  # noqa: F403
from cwm_jupyter.api.stack import *  # noqa: F403
from cwm_jupyter.api.turns import *  # noqa: F403
from cwm_jupyter.api.upkeep import *  # noqa: F403

__all__ = [
    *archive.__all__,
    *audit.__all__,
    *branches.__all__,
    *configuration.__all__,
    *frozen.__all__,
    *keeping.__all__,
    *live.__all__,
    *pictures.__all__,
    *policies.__all__,
    *stack.__all__,
    *turns.__all__,
    *upkeep.__all__,
]
