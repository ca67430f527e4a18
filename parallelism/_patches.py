"""Repairs of megatron-core 0.19.2; tests/parallelism/test_patches.py fails when the library no longer needs one.

Without TransformerEngine and apex, Megatron's distributed optimizer runs torch's AdamW, and then

1. saving before the first step fails: the step is read from a state that AdamW has not made yet
   (optimizer/distrib_optimizer.py, state_dict);
2. loading fails with KeyError 'step': it copies every tensor of AdamW's state, but the checkpoint has no step there
   (_set_main_param_and_optimizer_states);
3. after loading, all parameters share one step tensor, which then advances by the number of parameters in each step:
   wrong losses, no error (load_state_dict).

With any optimizer it saves wrong values, without an error, where its buffer has a bucket with padding before the last
one, as large models under data parallelism have, and small ones with tied tables: the buckets are joined without their
padding, but parameters are looked up at places that count it (get_parameter_state_dp_zero and
sharded_param_state_fully_reshardable; NVIDIA's own comment there calls it a bug). Weights are not concerned.

Saving also starts a manager process for results that only an asynchronous save needs, 2 s in each process that saves
(dist_checkpointing/strategies/filesystem_async.py), and waits for ever where psutil is missing, which is not declared.

And destroy_model_parallel leaves groups behind: in one of its variables and in the cache of RotaryEmbedding.forward.
Their threads run on; a process that is forked later lacks these threads, and hangs when it drops the groups.
"""

import contextlib
import importlib.util
import queue
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from torch import Tensor
from torch.nn import Parameter

_SETTER = "_set_main_param_and_optimizer_states"
_RESULTS = "_results_queue"
_LEFT = "_INTRA_PARTIAL_DATA_PARALLEL_GROUP_WITH_CP"


def allocate_adam_state(optimizer: torch.optim.Optimizer) -> None:
    """Gives torch's AdamW the state that it would make in its first step (repair 1); other optimizers keep theirs."""
    if not isinstance(optimizer, torch.optim.AdamW) or optimizer.state:
        return
    for group in optimizer.param_groups:
        group["fused"] = True  # one pass over memory for what else takes a dozen
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),  # where one pass reads it
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }


@contextlib.contextmanager
def loadable_adam_state(*optimizers: torch.optim.Optimizer) -> Iterator[None]:
    """Lets the distributed optimizer load torch's AdamW state while open; separates the steps at the end (2 and 3)."""
    original = getattr(DistributedOptimizer, _SETTER)

    def without_step(self: DistributedOptimizer, parameter: Parameter, tensors: Mapping[str, Any]) -> None:
        original(self, parameter, {"step": None, **tensors})

    setattr(DistributedOptimizer, _SETTER, without_step)
    try:
        yield
    finally:
        setattr(DistributedOptimizer, _SETTER, original)
    for optimizer in optimizers:
        if isinstance(optimizer, torch.optim.AdamW):
            for state in optimizer.state.values():
                state["step"] = state["step"].clone()


@contextlib.contextmanager
def joined_with_padding(*optimizers: DistributedOptimizer) -> Iterator[None]:
    """Lets the distributed optimizers join their buckets padding included, while open, so that places are right."""
    parts = [part for single in optimizers for buffer in single.buffers for part in (buffer, *buffer.buckets)]
    kept = [part.numel_unpadded for part in parts]
    for part in parts:
        part.numel_unpadded = part.grad_data.numel()
    try:
        yield
    finally:
        for part, size in zip(parts, kept, strict=True):
            part.numel_unpadded = size


@contextlib.contextmanager
def saved_without_manager() -> Iterator[None]:
    """Lets a synchronous save hand its results over inside this process.

    Raises:
        RuntimeError: psutil is not installed; the save would hang.
    """
    if importlib.util.find_spec("psutil") is None:
        raise RuntimeError("psutil must be installed, but it is not, and saving would hang; install psutil")
    kept = getattr(filesystem_async, _RESULTS)
    setattr(filesystem_async, _RESULTS, queue.Queue())
    try:
        yield
    finally:
        setattr(filesystem_async, _RESULTS, kept)


def release_groups() -> None:
    """Lets go of the groups that destroy_model_parallel forgets."""
    setattr(parallel_state, _LEFT, None)
    RotaryEmbedding.forward.cache_clear()


def hosted_writer(request: Any, *, changing: frozenset[int]) -> Callable[[], None]:
    """Returns what writes this rank's files of a save from host memory; nothing lies in the storages `changing`.

    Megatron copies to host memory in the process that it starts for writing; here a thread writes, and what training
    changes must be copied before it goes on.
    """
    if request.async_fn is None:
        return lambda: None
    rank, buckets, results = request.async_fn_args
    hosted = request.preload_fn()
    hosted = [
        (path, name, (objects, [(item, _apart(tensor, changing)) for item, tensor in tensors]))
        for path, name, (objects, tensors) in hosted
    ]
    buckets[:] = [(path, name, ([], [])) for path, name, _ in buckets]  # Megatron only counts them from here on
    return partial(request.async_fn, rank, hosted, results, **request.async_fn_kwargs)


def _apart(tensor: Tensor, changing: frozenset[int]) -> Tensor:
    return tensor.clone() if tensor.untyped_storage().data_ptr() in changing else tensor
