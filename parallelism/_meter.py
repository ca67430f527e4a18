"""Counts what torch does while nothing is computed: bytes that live, what ranks send each other, matmul FLOPs.

It sits on top of torch's FakeTensorMode, below autograd, so it sees every operation of the forward pass, the backward
pass and the optimizer, whoever wrote it. Collectives go nowhere: each is counted and answered as done.
"""

import functools
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed import ProcessGroup
from torch.distributed._meta_registrations import create_fakework
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Exchanges = dict[tuple[str, str, int], tuple[int, int]]
"""(calls, bytes of whole tensors) by (group, operation, ranks in the group)."""

_GROUPS: Mapping[str, str] = {
    "TENSOR_MODEL_PARALLEL_GROUP": "tensor",
    "PIPELINE_MODEL_PARALLEL_GROUP": "pipeline",
    "CONTEXT_PARALLEL_GROUP": "context",
    "DATA_PARALLEL_GROUP": "data",
    "DATA_PARALLEL_GROUP_WITH_CP": "data",
    "INTRA_PARTIAL_DATA_PARALLEL_GROUP_WITH_CP": "data",
    "EXPERT_MODEL_PARALLEL_GROUP": "expert",
    "EXPERT_TENSOR_AND_MODEL_PARALLEL_GROUP": "expert",
    "EXPERT_DATA_PARALLEL_GROUP": "expert_data",
    "EMBEDDING_GROUP": "embedding",
    "TENSOR_AND_DATA_PARALLEL_GROUP_WITH_CP": "stage",
    "INTRA_DISTRIBUTED_OPTIMIZER_INSTANCE_GROUP": "all",
    "default_pg": "all",
}
"""Our name of each of Megatron's groups; another one keeps its own."""

_OPERATIONS: Mapping[str, tuple[str, int]] = {
    "allreduce_": ("all-reduce", 0),
    "allreduce_coalesced_": ("all-reduce", 0),
    "broadcast_": ("broadcast", 0),
    "allgather_": ("all-gather", 0),
    "_allgather_base_": ("all-gather", 0),
    "allgather_into_tensor_coalesced_": ("all-gather", 0),
    "reduce_scatter_": ("reduce-scatter", 1),
    "_reduce_scatter_base_": ("reduce-scatter", 1),
    "reduce_scatter_tensor_coalesced_": ("reduce-scatter", 1),
    "alltoall_base_": ("all-to-all", 1),
    "alltoall_": ("all-to-all", 1),
    "send": ("send", 0),
    "recv_": ("receive", 0),
}
"""What each of torch's collectives is, and which argument is the whole tensor, or what a rank has before it."""


class Meter(TorchDispatchMode):
    """What was counted while it was open.

    Attributes:
        live: bytes that live now.
        peak: the most bytes that lived at once, since the last `restart`.
        flops: of matmuls since the last `restart`, two for each multiplication; attention's own are not counted.
        exchanges: since the last `restart`.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = self.flops = 0
        self.exchanges: Exchanges = {}
        self._sizes: dict[int, int] = {}

    def restart(self) -> None:
        """Begins to count again; what lives is kept."""
        self.peak, self.flops, self.exchanges = self.live, 0, {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs or answers one operation, and counts it."""
        if _is_collective(func):
            return self._exchanged(func, args)
        if func is _ITEM and isinstance(args[0], FakeTensor):
            return 1.0 if args[0].is_floating_point() else 1  # any number is as good as another where there is no data
        answer = func(*args, **(kwargs or {}))
        if func in _MATMULS:
            self.flops += _MATMULS[func](*args)
        for leaf in tree_leaves(answer):
            if isinstance(leaf, Tensor):
                self._keep(leaf)
        return answer

    def _keep(self, tensor: Tensor) -> None:
        """Counts the storage behind `tensor` from its first sight to its end."""
        storage = tensor.untyped_storage()
        key = storage._cdata  # noqa: SLF001 - its identity, whichever tensor shows it
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.live += self._sizes[key]
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, key).atexit = False

    def _release(self, key: int) -> None:
        self.live -= self._sizes.pop(key)

    def _exchanged(self, func: Any, args: Sequence[Any]) -> Any:
        operation, whole = _OPERATIONS.get(func.overloadpacket.__name__, ("", 0))
        group = next((found for found in map(_group, args) if found is not None), None)
        if operation and group and group.size() > 1:
            key = (_GROUPS.get(group.group_desc, group.group_desc.lower()), operation, group.size())
            calls, size = self.exchanges.get(key, (0, 0))
            size += sum(leaf.nbytes for leaf in tree_leaves(args[whole]) if isinstance(leaf, Tensor))
            self.exchanges[key] = (calls + 1, size)
        gives_tensors = len(func._schema.returns) > 1  # noqa: SLF001 - torch has no public name for a schema
        return create_fakework(args, return_first_arg=gives_tensors)


_ITEM = torch.ops.aten._local_scalar_dense.default  # noqa: SLF001 - what .item() becomes


@functools.cache
def _is_collective(func: Any) -> bool:
    return bool(func.namespace == "c10d")


def _group(argument: Any) -> ProcessGroup | None:
    if isinstance(argument, torch.ScriptObject) and "ProcessGroup" in str(argument._type()):  # noqa: SLF001 - see above
        return ProcessGroup.unbox(argument)
    return None


def _product(left: Tensor, right: Tensor) -> int:
    return 2 * left.numel() * right.shape[-1]


_MATMULS: Mapping[Any, Callable[..., int]] = {
    torch.ops.aten.mm.default: _product,
    torch.ops.aten.bmm.default: _product,
    torch.ops.aten.addmm.default: lambda _, left, right: _product(left, right),
    torch.ops.aten.baddbmm.default: lambda _, left, right: _product(left, right),
}
