"""Megatron's process groups for a layout, and the quiet that engines are kept in while they hold."""

import contextlib
import warnings
from collections.abc import Iterator

from megatron.core import parallel_state
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed

from parallelism.layout import Layout


@contextlib.contextmanager
def made(layout: Layout) -> Iterator[None]:
    """Makes the groups of `layout` out of the joined ranks, and takes them apart at the end."""
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=layout.tensor_model_parallel_size,
        pipeline_model_parallel_size=layout.pipeline_model_parallel_size,
        virtual_pipeline_model_parallel_size=layout.virtual_pipeline_model_parallel_size,
        context_parallel_size=layout.context_parallel_size,
        expert_model_parallel_size=layout.expert_model_parallel_size,
        expert_tensor_parallel_size=1,
        create_gloo_process_groups=False,
    )
    try:
        # Nothing draws from these generators: first weights have theirs, there is no dropout. Megatron wants them set.
        model_parallel_cuda_manual_seed(1, force_reset_rng=True)
        yield
    finally:
        parallel_state.destroy_model_parallel()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leaves the engines' warnings to each other out of the log; on a CPU they come through the frame of the seam."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(megatron|torch|parallelism\.device)\b")
        yield
