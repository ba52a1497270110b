"""What our stack adds to vLLM's workers: ``--worker-extension-cls …worker.WorkerExtension``."""

from __future__ import annotations

from typing import Any

__all__ = ["WorkerExtension"]


class WorkerExtension:
    """Mixed into vLLM's worker, whose attributes these methods use."""

    model_runner: Any
    vllm_config: Any

    def touch_kv_cache(self, size_bytes: int) -> int:
        """Have the system give the first blocks of the KV cache their pages, and return the bytes.

        A page of memory is made when it is first written: the first thaw would wait for some
        hundred megabytes of them. What is in the blocks stays as it is.
        """
        import torch

        caches = [cache for cache in self.model_runner.kv_caches if isinstance(cache, torch.Tensor)]
        blocks = self.vllm_config.cache_config.num_gpu_blocks
        total = sum(cache.nbytes for cache in caches)
        touched = 0
        for cache in caches:
            if cache.device.type != "cpu" or blocks not in cache.shape:
                continue
            first = min(blocks, blocks * size_bytes // total + 1)
            part = cache.narrow(cache.shape.index(blocks), 0, first).view(torch.uint8)
            part.bitwise_or_(0)
            touched += part.nbytes
        return touched
