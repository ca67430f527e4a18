"""What learns on this rank: the model's chunks, the distributed optimizer and its schedule, and their checkpoints."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.optimizer import MegatronOptimizer, OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from megatron.core.transformer.module import MegatronModule
from megatron.core.utils import unwrap_model
from torch import Tensor

from parallelism import checkpoint, importer, model
from parallelism._patches import allocate_adam_state, joined_with_padding, loadable_adam_state
from parallelism.batches import Batches, Ramp
from parallelism.checkpoint import Checkpoint, Writing
from parallelism.data import AttentionMask
from parallelism.importer import Source
from parallelism.layout import Layout, Precision
from parallelism.presets import ModelShape
from parallelism.setbacks import Policy
from slurm.files import digest


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides the losses: trainings with equal recipes have the same curve under any layout.

    Attributes:
        data_digest: the digest of the token shards' manifest.
        mixture: each stream's share of the samples.
        attention_mask: what a token sees of the documents packed with its own.
        lr_decay_iters: steps after which the learning rate stays at min_lr.
        lr_wsd_decay_iters: how many of these the decay of "WSD" takes; before, the rate is constant.
        rampup_batch_size: how the batch grows to global_batch_size.
        phases: later mixtures, each with its first step.
        setbacks: what is done about a loss that jumps or is no number.
        start_from_digest: of the Hugging Face folder that the first weights come from; empty where they are drawn.
    """

    shape: ModelShape
    vocab_size: int
    precision: Precision
    seed: int
    data_digest: str
    mixture: Mapping[str, float]
    seq_length: int
    global_batch_size: int
    lr: float
    min_lr: float
    lr_decay_style: Literal["cosine", "WSD"]
    lr_warmup_iters: int
    lr_decay_iters: int
    lr_wsd_decay_iters: int
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    clip_grad: float
    attention_mask: AttentionMask = "causal"
    rampup_batch_size: Ramp | None = None
    phases: tuple[tuple[int, Mapping[str, float]], ...] = ()
    setbacks: Policy = field(default_factory=Policy)
    start_from_digest: str = ""

    @property
    def batches(self) -> Batches:
        """The samples of every step."""
        return Batches(global_batch_size=self.global_batch_size, ramp=self.rampup_batch_size)

    @property
    def identity(self) -> str:
        """The digest of everything here; checkpoints of another identity are never continued."""
        return digest(asdict(self))


@dataclass(frozen=True, kw_only=True)
class Learner:
    """The pieces that Megatron's steps work on."""

    chunks: Sequence[DistributedDataParallel]
    optimizer: MegatronOptimizer
    scheduler: OptimizerParamScheduler


def build(recipe: Recipe, *, layout: Layout) -> Learner:
    """Builds this rank's part of the model with its first weights; needs Megatron's parallel state."""
    bare = model.build(
        recipe.shape,
        layout=layout,
        precision=recipe.precision,
        vocab_size=recipe.vocab_size,
        seq_length=recipe.seq_length,
        seed=recipe.seed,
    )
    overlap = layout.data_parallel_size > 1
    chunks = _wrapped(bare, overlap=overlap)
    optimizer = get_megatron_optimizer(
        OptimizerConfig(
            optimizer="adam",
            lr=recipe.lr,
            min_lr=recipe.min_lr,
            weight_decay=recipe.weight_decay,
            adam_beta1=recipe.adam_beta1,
            adam_beta2=recipe.adam_beta2,
            clip_grad=recipe.clip_grad,
            bf16=recipe.precision == "bf16",
            params_dtype=bare[0].config.params_dtype,
            use_distributed_optimizer=True,
            overlap_param_gather=overlap,
        ),
        chunks,
        use_gloo_process_groups=False,
    )
    for inner in _inner(optimizer):
        allocate_adam_state(inner)
    return Learner(chunks=chunks, optimizer=optimizer, scheduler=_scheduler(recipe, optimizer))


def start_from(learner: Learner, *, source: Source, recipe: Recipe) -> None:
    """Sets the first weights to those of a Hugging Face folder; the optimizer begins as new.

    Raises:
        HFError: it is another model, or damaged.
    """
    importer.require(source, shape=recipe.shape, vocab_size=recipe.vocab_size)
    with gathered(learner):
        for chunk in learner.chunks:
            importer.fill(unwrap_model(chunk), source=source)
        learner.optimizer.reload_model_params()


def _wrapped(bare: Sequence[MegatronModule], *, overlap: bool) -> list[DistributedDataParallel]:
    """Gives the chunks gradient buffers; `overlap` hides their reduction behind the backward pass."""
    config = bare[0].config
    ddp = DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        use_distributed_optimizer=True,
        overlap_grad_reduce=overlap,
        overlap_param_gather=overlap,
    )
    chunks = [
        DistributedDataParallel(config, ddp, chunk, disable_bucketing=number > 0) for number, chunk in enumerate(bare)
    ]
    config.finalize_model_grads_func = finalize_model_grads
    if overlap:
        config.no_sync_func = [chunk.no_sync for chunk in chunks] if len(chunks) > 1 else chunks[0].no_sync
        starts = [chunk.start_grad_sync for chunk in chunks]
        config.grad_sync_func = starts if len(chunks) > 1 else starts[0]
    return chunks


def _scheduler(recipe: Recipe, optimizer: MegatronOptimizer) -> OptimizerParamScheduler:
    return OptimizerParamScheduler(
        optimizer,
        init_lr=0.0,
        max_lr=recipe.lr,
        min_lr=recipe.min_lr,
        lr_warmup_steps=recipe.lr_warmup_iters,
        lr_decay_steps=recipe.lr_decay_iters,
        lr_decay_style=recipe.lr_decay_style,
        start_wd=recipe.weight_decay,
        end_wd=recipe.weight_decay,
        wd_incr_steps=recipe.lr_decay_iters,
        wd_incr_style="constant",
        use_checkpoint_opt_param_scheduler=False,
        wsd_decay_steps=recipe.lr_wsd_decay_iters,
        lr_wsd_decay_style="linear",
    )


def clear_gradients(learner: Learner) -> None:
    """Empties the gradient buffers before a step."""
    for chunk in learner.chunks:
        chunk.zero_grad_buffer()
    learner.optimizer.zero_grad()


def router_biases(learner: Learner) -> list[tuple[Tensor, Tensor]]:
    """Returns each router's bias with a copy of it: Megatron changes it in the pass that makes the gradients."""
    buffers = [buffer for chunk in learner.chunks for name, buffer in chunk.named_buffers() if "expert_bias" in name]
    return [(buffer, buffer.clone()) for buffer in buffers]


def gradient_norm(learner: Learner) -> float:
    """Returns the norm of the gradients over the whole model, the same on every rank; call it once, before `update`."""
    learner.optimizer.prepare_grads()
    return float(learner.optimizer.get_grad_norm())


def update(learner: Learner, *, norm: float) -> None:
    """Clips the gradients, whose norm is `norm`, and applies them: what Megatron's step() does, once it is wanted."""
    for single in chained(learner.optimizer):
        weights = [] if single.is_stub_optimizer else single.get_parameters()
        if weights:
            clip_grad_by_total_norm_fp32(weights, max_norm=single.config.clip_grad, total_norm=norm)
    learner.optimizer.step_with_ready_grads()


def advance_rate(learner: Learner) -> float:
    """Sets the learning rate of the next step, which it counts, and returns it."""
    learner.scheduler.step(1)
    return float(max(group["lr"] for group in learner.optimizer.param_groups))


@contextlib.contextmanager
def gathered(learner: Learner) -> Iterator[None]:
    """Makes every rank's weights current while open.

    With overlap, other data-parallel ranks' weights arrive in the next forward pass; saved before it, they are stale.
    """
    hooked = [chunk for chunk in learner.chunks if chunk.ddp_config.overlap_param_gather]
    for chunk in hooked:
        chunk.disable_forward_pre_hook(param_sync=True)
    try:
        yield
    finally:
        for chunk in hooked:
            chunk.enable_forward_pre_hook()


def save(learner: Learner, *, folder: Path, step: int, facts: Mapping[str, Any]) -> Checkpoint:
    """Saves the model and the optimizer after `step` steps; every rank must call it.

    The step is the rest of the state: data order and schedule are functions of it, and nothing draws random numbers.
    """
    return checkpoint.commit(begin_save(learner, folder=folder, step=step, background=False), facts=facts)


def begin_save(learner: Learner, *, folder: Path, step: int, background: bool) -> Writing:
    """Begins to save what there is now; every rank must call it. With `background`, training may go on meanwhile."""
    with gathered(learner):
        states = _states(learner, loading=False)
        return checkpoint.begin(folder, step=step, states=states, background=background, live=_live(learner))


def _live(learner: Learner) -> Iterator[Tensor]:
    """Yields what training changes: weights, what else a model keeps, and what the optimizers keep."""
    for chunk in learner.chunks:
        yield from chunk.parameters()
        yield from unwrap_model(chunk).buffers()  # DDP has another thing of that name
    for inner in _inner(learner.optimizer):
        yield from (weight for group in inner.param_groups for weight in group["params"])
        yield from (item for state in inner.state.values() for item in state.values() if isinstance(item, Tensor))


def restore(learner: Learner, *, found: Checkpoint) -> None:
    """Sets model, optimizer and schedule to what was saved, possibly under another layout; every rank must call it."""
    with gathered(learner), loadable_adam_state(*_inner(learner.optimizer)):
        states = checkpoint.load(found, states=_states(learner, loading=True))
        for number, chunk in enumerate(learner.chunks):
            unwrap_model(chunk).load_state_dict(states[f"model{number}"])
        for number, single in enumerate(chained(learner.optimizer)):
            single.load_state_dict(_own_state(single, states["optimizer"], number=number))
    learner.scheduler.num_steps = 0
    learner.scheduler.step(found.step)


def _states(learner: Learner, *, loading: bool) -> dict[str, Any]:
    metadata = model.sharded_metadata()
    models = {
        f"model{number}": unwrap_model(chunk).sharded_state_dict(metadata=metadata)
        for number, chunk in enumerate(learner.chunks)
    }
    single = chained(learner.optimizer)
    with joined_with_padding(*single):
        optimizers = {
            number: one.sharded_state_dict(models, is_loading=loading, metadata=metadata)
            for number, one in enumerate(single)
        }
    return {**models, "optimizer": optimizers}


def _own_state(single: MegatronOptimizer, loaded: Mapping[int, Mapping[str, Any]], *, number: int) -> dict[str, Any]:
    """Returns the state of optimizer `number` from a checkpoint of as many optimizers or another number of them.

    The tensors are found by parameter. What else there is, rates and decays, is this recipe's; only the count of Adam's
    steps is taken over.
    """
    own = single.state_dict()["optimizer"]
    counted = loaded[0]["optimizer"]["param_groups"][0]
    steps = {"step": counted["step"]} if "step" in counted else {}
    groups = [{**group, **steps} for group in own["param_groups"]]
    return {**loaded[0], **loaded[number], "optimizer": {**own, "param_groups": groups}}


def chained(optimizer: MegatronOptimizer) -> list[MegatronOptimizer]:
    """Returns Megatron's single optimizers: one, and one for experts that are spread over ranks."""
    return list(getattr(optimizer, "chained_optimizers", [optimizer]))


def _inner(optimizer: MegatronOptimizer) -> list[torch.optim.Optimizer]:
    """Returns the torch optimizers that Megatron's single ones drive."""
    return [single.optimizer for single in chained(optimizer)]
