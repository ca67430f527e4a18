"""One pass over a global batch through Megatron's pipeline schedule: samples in, summed losses per stream out.

Legend: B micro batch, S sequence, M streams.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.transformer.module import MegatronModule
from megatron.core.utils import unwrap_model
from numpy.typing import NDArray
from torch import Tensor

from parallelism import context, data, device
from parallelism.data import AttentionMask, Sample, TokenStream
from parallelism.layout import Layout
from parallelism.loader import Loader


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Losses of one batch over all ranks.

    Attributes:
        sums: nats of each stream, summed over its predicted tokens.
        counts: predicted tokens of each stream.
        stop: ranks that were asked to stop.
        busy: ranks that still write a checkpoint.
    """

    sums: tuple[float, ...]
    counts: tuple[float, ...]
    stop: int
    busy: int

    @property
    def mean(self) -> float:
        """Nats per token over all streams."""
        return sum(self.sums) / sum(self.counts)

    def by_stream(self, names: Sequence[str]) -> dict[str, float]:
        """Returns nats per token of each stream that occurred, by name."""
        return {name: total / count for name, total, count in zip(names, self.sums, self.counts, strict=True) if count}


def run(
    chunks: Sequence[MegatronModule],
    samples: Sequence[Sample],
    *,
    streams: Sequence[TokenStream],
    layout: Layout,
    mode: AttentionMask = "causal",
    loader: Loader | None = None,
    then: Sequence[Sample] = (),
    forward_only: bool = False,
    stop: bool = False,
    busy: bool = False,
) -> Losses:
    """Runs the forward pass, and the backward pass unless `forward_only`, of one global batch; every rank must call it.

    Gradients are left in the chunks' buffers, divided by the batch's tokens. `mode` is what a token sees of packed
    documents; `loader` reads its micro batches ahead, and those of `then`, the samples that will be asked for next;
    `stop` and `busy` are this rank's.
    """
    loader = loader or Loader(streams=streams, seq_length=layout.seq_length, mode=mode, depth=0)
    mine = _mine(samples, layout)
    if any(unwrap_model(chunk).pre_process or unwrap_model(chunk).post_process for chunk in chunks):
        loader.expect([*mine, *_mine(then, layout)])
    stored = get_forward_backward_func()(
        forward_step_func=partial(_forward, loader=loader),
        data_iterator=[iter(mine) for _ in chunks] if len(chunks) > 1 else iter(mine),
        model=list(chunks),
        num_microbatches=len(mine),
        seq_length=layout.seq_length,
        micro_batch_size=layout.micro_batch_size,
        forward_only=forward_only,
    )
    return _summed(stored, count=len(streams), marks=(stop, busy))


def _mine(samples: Sequence[Sample], layout: Layout) -> list[Sequence[Sample]]:
    """Returns this rank's micro batches."""
    rank, size = parallel_state.get_data_parallel_rank(), parallel_state.get_data_parallel_world_size()
    return list(data.share(samples, rank=rank, size=size, micro_batch_size=layout.micro_batch_size))


def _forward(
    iterator: Iterator[Sequence[Sample]], chunk: MegatronModule, *, loader: Loader
) -> tuple[Tensor, partial[tuple[Tensor, Tensor, Tensor]]]:
    """Runs one micro batch through one chunk, in the form that Megatron's schedules call; only the ends read tokens."""
    samples = next(iterator)
    inner = unwrap_model(chunk)
    if not (inner.pre_process or inner.post_process):
        ids = data.read_ids(samples, streams=loader.streams, seq_length=loader.seq_length, mode=loader.mode)
        return chunk(None, None, _placed(ids)), partial(_loss)
    batch = loader.take(samples)
    tokens_BS, labels_BS, mask_BS = (_share(part) for part in (batch.tokens, batch.labels, batch.mask))
    positions_BS = _share(np.arange(loader.seq_length)[None]).expand_as(tokens_BS)
    output = chunk(tokens_BS, positions_BS, _placed(batch.ids), labels=labels_BS if inner.post_process else None)
    streams_B = torch.from_numpy(batch.streams).to(device.current())
    return output, partial(_loss, mask_BS=mask_BS, streams_B=streams_B, count=len(loader.streams))


def _placed(ids: NDArray[np.int32] | None) -> Tensor | None:
    """Returns the ids for core attention, of whole sequences: every rank's queries meet all keys."""
    return None if ids is None else torch.from_numpy(ids).to(device.current())


def _share(whole: NDArray[Any]) -> Tensor:
    """Returns this context rank's part of every sequence."""
    rank, size = parallel_state.get_context_parallel_rank(), parallel_state.get_context_parallel_world_size()
    return context.local(torch.from_numpy(whole).to(device.current()), rank=rank, size=size)


def _loss(nats_BS: Tensor, *, mask_BS: Tensor, streams_B: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns (loss to differentiate: the sum, its tokens, (2, M) sums and tokens per stream)."""
    sums_B = (nats_BS.float() * mask_BS).sum(1)
    tokens_B = mask_BS.sum(1)
    report_2M = torch.zeros(2, count, dtype=torch.float64, device=sums_B.device)
    report_2M[0].index_add_(0, streams_B, sums_B.detach().double())
    report_2M[1].index_add_(0, streams_B, tokens_B.double())
    return sums_B.sum(), tokens_B.sum().int(), report_2M


def _summed(stored: Sequence[Tensor], *, count: int, marks: tuple[bool, bool]) -> Losses:
    """Adds the reports of all micro batches and ranks, in one collective; they exist on the last stage only."""
    report_2M = torch.zeros(2, count, dtype=torch.float64, device=device.current())
    if stored and parallel_state.get_tensor_model_parallel_rank() == 0:
        report_2M += torch.stack(list(stored)).sum(0)
    marked = torch.tensor(marks, dtype=torch.float64, device=device.current())
    everything = torch.cat([report_2M.flatten(), marked])
    dist.all_reduce(everything)
    values = everything.tolist()
    stop, busy = (round(mark) for mark in values[2 * count :])
    return Losses(sums=tuple(values[:count]), counts=tuple(values[count : 2 * count]), stop=stop, busy=busy)
