"""Who may see whom: one rule for every mask mode, read from ids that travel with the batch.

A token sees what is before it and itself, within its group, unless it belongs to another document in the same language:

    causal AND same group AND (same document OR different language)

The ids say the mode: where every document is its own group the rule is the usual document mask, where translations of
each other share a group it is XLDA (docs/xlda.md), and without ids all is one document.

Legend: ids_B3S int32, for each token its document, its group and its language; documents and groups never decrease
along a sequence. Q queries, K keys.
"""

from collections.abc import Callable

import torch
from torch import Tensor

DOCUMENT, GROUP, LANGUAGE = 0, 1, 2

_KEPT = 16
_kept: dict[tuple[object, ...], tuple[Tensor, object]] = {}


def visible(query_ids_3Q: Tensor, key_ids_3K: Tensor, *, query_at_Q: Tensor, key_at_K: Tensor) -> Tensor:
    """Returns bool (Q, K): True where the query may see the key; `at` are places in the whole sequence."""
    document, group, language = (
        query_ids_3Q[row, :, None] == key_ids_3K[row, None, :] for row in (DOCUMENT, GROUP, LANGUAGE)
    )
    return (query_at_Q[:, None] >= key_at_K) & group & (document | ~language)


def per_batch[Made](ids: Tensor, *, kind: object, make: Callable[[], Made]) -> Made:
    """Returns what `make` makes of these ids, made once for all layers and for the recomputation of each.

    The ids are kept beside it, so that no other tensor can take their place in memory meanwhile.
    """
    key = (kind, ids.data_ptr(), ids._version, tuple(ids.shape))  # noqa: SLF001 - torch's counter of changes in place
    if key not in _kept:
        while len(_kept) >= _KEPT:
            del _kept[next(iter(_kept))]
        _kept[key] = (ids, make())
    made: Made = _kept[key][1]  # type: ignore[assignment]  # what `make` gave under this key
    return made


def check(ids: Tensor, *, batch: int, length: int) -> None:
    """Checks the ids' form.

    Raises:
        ValueError: they are no int tensor of shape (batch, 3, length).
    """
    if ids.is_floating_point() or ids.dtype == torch.bool or ids.shape != (batch, 3, length):
        raise ValueError(
            f"attention_mask must be None or document, group and language ids, an int tensor {(batch, 3, length)}, but "
            f"is {ids.dtype} {tuple(ids.shape)}; pass the batch's ids, whole under context parallelism too"
        )
