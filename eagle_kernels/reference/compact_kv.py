"""compact_kv in plain torch."""

from torch import Tensor


def compact_kv(caches: list[Tensor], accept_index: Tensor, accept_length: Tensor, context_len: Tensor) -> None:
    for b in range(accept_index.shape[0]):
        path = accept_index[b, : int(accept_length[b]) + 1].long()
        start = int(context_len[b])
        for cache in caches:
            cache[b, :, start : start + len(path)] = cache[b, :, start + path]
