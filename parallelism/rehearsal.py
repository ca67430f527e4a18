"""A rehearsal: every distinct rank of a layout does one optimizer step on this machine, with nothing computed.

The functions are those of training: the model, the learner, Megatron's schedule, the optimizer. Their tensors have
shapes and no data (torch's FakeTensorMode), the other ranks are there in name only (torch's fake process group), and a
meter counts what lives, what is sent and what is multiplied.

Distinct ranks are one of each pipeline stage. Tensor, context, data and expert parallel ranks of a stage build tensors
of equal shapes and do the same operations in the same order, as every divided size divides evenly (layout.problems) and
tokens are taken to be spread evenly over experts. They differ in one thing: the distributed optimizer's shards are
equal parts of a buffer, and its last part may hold less than the others. `optimizer_bytes` counts each rank's own.
"""

import contextlib
import gc
import multiprocessing
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore

from parallelism import device, groups, learner, step
from parallelism._meter import Exchanges, Meter
from parallelism._patches import release_groups
from parallelism._rehearsed import Kernels, answered
from parallelism.data import Sample
from parallelism.layout import Layout
from parallelism.learner import Learner, Recipe

_STRIDE = 7919
"""A prime."""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One kind of exchange of a rank in one step; `bytes` are of whole tensors, as in parallelism/cost/traffic.py.

    Attributes:
        members: ranks of the group.
    """

    group: str
    operation: str
    members: int
    calls: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """What one rank was seen to do.

    Attributes:
        rank: its number; it stands for all ranks of its pipeline stage.
        parameters: learned numbers on it.
        parameter_bytes: of the buffers that they lie in.
        gradient_bytes: of the buffers of their gradients.
        optimizer_bytes: of the optimizer's state on each rank of the stage, in the order of their numbers.
        other_bytes: what else there is before the first step.
        activation_bytes: the most that the forward and the backward pass have at once beside all these.
        update_bytes: the most that the optimizer has at once beside all these, after the backward pass, for its shard.
        matmul_flops: forward and backward; attention's own matmuls are inside its kernel and not counted.
        exchanges: what it sends and receives.
    """

    rank: int
    stage: int
    parameters: int
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: tuple[int, ...]
    other_bytes: int
    activation_bytes: int
    update_bytes: int
    matmul_flops: int
    exchanges: tuple[Exchange, ...]

    @property
    def peak_bytes(self) -> int:
        """Bytes at the fullest moment of a step on the fullest rank of the stage."""
        return max(map(self.peak_on, range(len(self.optimizer_bytes))))

    def peak_on(self, place: int) -> int:
        """Returns the bytes at the fullest moment of a step on rank number `place`, from 0, of the stage."""
        state = self.parameter_bytes + self.gradient_bytes + self.optimizer_bytes[place] + self.other_bytes
        return state + max(self.activation_bytes, self.update_bytes)


@dataclass(frozen=True, kw_only=True)
class _Job:
    recipe: Recipe
    layout: Layout
    kernels: Kernels
    rank: int
    whole: bool


def rehearse(
    recipe: Recipe,
    *,
    layout: Layout,
    kernels: Kernels = "gpu",
    processes: int = 1,
    ranks: Sequence[int] | None = None,
    whole: bool = False,
) -> Iterator[Rehearsed]:
    """Yields what each distinct rank did, as they end.

    Call `device.prepare` first, on a machine or in a process that sees no GPU.

    Args:
        recipe: what would be trained.
        layout: how it is spread.
        kernels: whose kernels are rehearsed.
        processes: ranks rehearsed at a time, each in a process forked from this one.
        ranks: other ranks than the first of each stage.
        whole: run every microbatch; else a step with more than twice as many microbatches as stages is taken from two
            steps, with one and two microbatches for each stage: each further one adds the same exchanges and FLOPs.

    Raises:
        RuntimeError: this process sees a GPU.
    """
    if device.has_gpu():
        raise RuntimeError("a rehearsal must not see a GPU, but one is visible; set CUDA_VISIBLE_DEVICES to nothing")
    width = layout.world_size // layout.pipeline_model_parallel_size
    chosen = range(0, layout.world_size, width) if ranks is None else ranks
    jobs = [_Job(recipe=recipe, layout=layout, kernels=kernels, rank=rank, whole=whole) for rank in chosen]
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads; the children use none of them
        pool = multiprocessing.get_context("fork").Pool(processes, initializer=_begin, maxtasksperchild=1)
    with pool:
        yield from pool.imap_unordered(_rehearse, jobs)


def _begin() -> None:
    gc.freeze()  # what the parent left is the parent's to end
    torch.set_num_threads(1)


def _rehearse(job: _Job) -> Rehearsed:
    layout = job.layout
    warnings.simplefilter("ignore")  # the engines' to each other
    with device.stand_in(), _alone(job), groups.made(layout), _without_data() as meter, answered(job.kernels):
        built = learner.build(job.recipe, layout=layout)
        state = meter.live
        peak, update_peak, flops, exchanges = _step(job, built, meter)
        return Rehearsed(
            rank=job.rank,
            stage=job.rank * layout.pipeline_model_parallel_size // layout.world_size,
            parameters=sum(parameter.numel() for chunk in built.chunks for parameter in chunk.parameters()),
            **_state_bytes(built, live=state, layout=layout, rank=job.rank),
            activation_bytes=peak - state,
            update_bytes=update_peak - state,
            matmul_flops=flops,
            exchanges=exchanges,
        )


@contextlib.contextmanager
def _alone(job: _Job) -> Iterator[None]:
    dist.init_process_group("fake", rank=job.rank, world_size=job.layout.world_size, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()
        release_groups()


@contextlib.contextmanager
def _without_data() -> Iterator[Meter]:
    with FakeTensorMode(allow_non_fake_inputs=True), Meter() as meter:
        yield meter


def _step(job: _Job, built: Learner, meter: Meter) -> tuple[int, int, int, tuple[Exchange, ...]]:
    """Returns (peak, peak of the update, FLOPs, exchanges) of a step."""
    count, stages = job.layout.num_microbatches, job.layout.pipeline_model_parallel_size
    if job.whole or count <= 2 * stages:
        peaks = _run(job, built, meter, microbatches=count)
        return *peaks, meter.flops, _listed(meter.exchanges)
    _run(job, built, meter, microbatches=stages)
    flops, exchanges = meter.flops, meter.exchanges
    peaks = _run(job, built, meter, microbatches=2 * stages)
    further = (count - 2 * stages) // stages
    all_flops = meter.flops + further * (meter.flops - flops)
    return *peaks, all_flops, _listed(_continued(exchanges, meter.exchanges, times=further))


def _run(job: _Job, built: Learner, meter: Meter, *, microbatches: int) -> tuple[int, int]:
    """Does one step; returns (its peak before the update, its peak in the update)."""
    peaks: list[int] = []

    def between() -> None:
        peaks.append(meter.peak)
        meter.peak = meter.live

    meter.restart()
    one_step(built, recipe=job.recipe, layout=job.layout, microbatches=microbatches, between=between)
    return peaks[0], meter.peak


def one_step(
    built: Learner,
    *,
    recipe: Recipe,
    layout: Layout,
    microbatches: int,
    between: Callable[[], None] = lambda: None,
) -> None:
    """Does one optimizer step as the trainer does, on made-up tokens; `between` is called before the update."""
    samples = microbatches * layout.micro_batch_size * layout.data_parallel_size
    learner.clear_gradients(built)
    step.run(
        built.chunks,
        [Sample(stream=0, window=number) for number in range(samples)],
        streams=[_Tokens(length=samples * layout.seq_length + 1, vocab_size=recipe.vocab_size)],
        layout=layout,
        mode=recipe.attention_mask,
    )
    between()
    learner.advance_rate(built)
    learner.update(built, norm=learner.gradient_norm(built))


def _listed(exchanges: Exchanges) -> tuple[Exchange, ...]:
    return tuple(
        Exchange(group=group, operation=operation, members=members, calls=calls, bytes=size)
        for (group, operation, members), (calls, size) in sorted(exchanges.items())
    )


def _continued(first: Exchanges, second: Exchanges, *, times: int) -> Exchanges:
    """Adds to `second` what it has more than `first`, `times` times."""
    found: Exchanges = {}
    for key, (calls, size) in second.items():
        before_calls, before_size = first.get(key, (0, 0))
        found[key] = calls + times * (calls - before_calls), size + times * (size - before_size)
    return found


def _state_bytes(built: Learner, *, live: int, layout: Layout, rank: int) -> dict[str, Any]:
    """Returns what lies in memory before the first step, by what it is for."""
    parameters = [parameter for chunk in built.chunks for parameter in chunk.parameters()]
    weights = _storages(parameters)
    gradients = _storages([parameter.main_grad for parameter in parameters])
    mine = _storages(_optimizer_tensors(built))
    state = {key: size for key, size in mine.items() if key not in weights}
    return {
        "parameter_bytes": sum(weights.values()),
        "gradient_bytes": sum(gradients.values()),
        "optimizer_bytes": _everyones(built, own=sum(state.values()), layout=layout, rank=rank),
        "other_bytes": live - sum(({**weights, **gradients, **state}).values()),
    }


def _optimizer_tensors(built: Learner) -> Iterator[Tensor]:
    """Yields the state of each torch optimizer and the parameters that it works on."""
    for single in learner.chained(built.optimizer):
        if single.is_stub_optimizer:
            continue
        for group in single.optimizer.param_groups:
            yield from group["params"]
        for state in single.optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    found = (tensor.untyped_storage() for tensor in tensors)
    return {storage._cdata: storage.nbytes() for storage in found}  # noqa: SLF001 - a storage's identity


def _everyones(built: Learner, *, own: int, layout: Layout, rank: int) -> tuple[int, ...]:
    """Returns the optimizer's bytes on each rank of the stage, of which rank number `rank` has `own`."""
    width = layout.world_size // layout.pipeline_model_parallel_size
    sizes = np.zeros(width, dtype=np.int64)
    element = 12 if built.chunks[0].config.bf16 else 8
    for chunk in built.chunks:
        for buffers, neighbours in (
            (chunk.buffers, layout.tensor_model_parallel_size),
            (chunk.expert_parallel_buffers, layout.expert_model_parallel_size),
        ):
            for buffer in buffers:
                sizes += _shards(buffer, bytes_of_element=element)[np.arange(width) // neighbours]
    return tuple(int(size) for size in sizes - sizes[rank % width] + own)


def _shards(buffer: Any, *, bytes_of_element: int) -> NDArray[np.int64]:
    """Returns the bytes of the optimizer's state for each rank's part of a buffer: elements, and a count of steps."""
    count = buffer.data_parallel_group.size()
    sizes = np.zeros(count, dtype=np.int64)
    for bucket in buffer.buckets:
        part = bucket.grad_data.numel() // count
        for parameter in bucket.params_list:
            start, end = (place - bucket.offset for place in buffer.param_index_map[parameter][:2])
            for number in range(start // part, -(-end // part)):
                elements = min(end, (number + 1) * part) - max(start, number * part)
                sizes[number] += elements * bytes_of_element + 4
    return sizes


@dataclass(frozen=True, kw_only=True)
class _Tokens:
    """A stream of one document that strides through the vocabulary: real experts get about even shares of it."""

    length: int
    vocab_size: int

    def __len__(self) -> int:
        return self.length

    def tokens(self, start: int, stop: int) -> NDArray[np.int64]:
        return np.arange(start, stop) * _STRIDE % self.vocab_size

    def ids(self, start: int, stop: int) -> NDArray[np.int32]:
        return np.zeros((3, stop - start), dtype=np.int32)
