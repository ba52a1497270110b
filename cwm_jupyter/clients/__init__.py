"""The clients of the two servers: one async class each, and the figures that they read."""

from cwm_jupyter.clients.lmcache import (
    CacheLayout,
    DeleteResult,
    LMCacheClient,
    PrefetchResult,
    RegisteredEngine,
)
from cwm_jupyter.clients.metrics import CacheFigures, EngineFigures, figures_text
from cwm_jupyter.clients.vllm import Completion, Delta, ServedModel, VLLMClient

__all__ = [
    "CacheFigures",
    "CacheLayout",
    "Completion",
    "DeleteResult",
    "Delta",
    "EngineFigures",
    "LMCacheClient",
    "PrefetchResult",
    "RegisteredEngine",
    "ServedModel",
    "VLLMClient",
    "figures_text",
]
