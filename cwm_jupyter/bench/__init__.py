"""The bench: freeze and thaw measured against limits, this machine's bounds, and each other.

Begin with `cwm_jupyter.bench.run`. ``docs/bench.md`` says what is measured, and how.
"""

from __future__ import annotations
