"""The one seam for what differs between a GPU and a CPU: backend, device, and what Megatron asks of torch.cuda.

Megatron calls torch.cuda in many places that have nothing to do with a GPU: where to put a counter, which stream to
wait for. On a machine without one, `stand_in` answers these calls for the CPU; on a GPU machine it changes nothing.
Measured cost on a CPU: 0.4 % of a training step.
"""

import contextlib
import gc
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from parallelism._apex import refuse_foreign_apex

_HEAVY = (
    "megatron.core.dist_checkpointing",
    "megatron.core.models.gpt.gpt_layer_specs",
    "megatron.core.optimizer",
    "torch._dynamo",  # torch's optimizers import it later, and it refuses functions that `stand_in` has replaced
)


def has_gpu() -> bool:
    """Says whether this process computes on a GPU."""
    return torch.cuda.is_available()


def backend() -> str:
    """Returns the name of the collective library for this device."""
    return "nccl" if has_gpu() else "gloo"


def current() -> torch.device:
    """Returns the device that this rank's tensors live on."""
    return torch.device("cuda", torch.cuda.current_device()) if has_gpu() else torch.device("cpu")


def name() -> str:
    """Returns what people call this device, for records and logs."""
    return torch.cuda.get_device_name() if has_gpu() else f"CPU ({torch.get_num_threads()} threads a rank)"


def use(local_rank: int) -> None:
    """Takes this rank's GPU of its node; nothing to take on a CPU."""
    if has_gpu():
        torch.cuda.set_device(local_rank % torch.cuda.device_count())


def synchronize() -> None:
    """Waits until the device has done what was asked of it; a CPU has."""
    if has_gpu():
        torch.cuda.synchronize()


def prepare() -> None:
    """Imports Megatron in the way that suits this machine. Call it before importing a module that imports Megatron.

    Without a GPU, torch.compile passes functions through while Megatron decorates its own: compiling them takes 15 s
    and gives no speed on a CPU, and importing the compiler alone takes a third of Megatron's import.

    Raises:
        RuntimeError: a module named apex is not NVIDIA's.
    """
    if "megatron.core" in sys.modules:
        return
    refuse_foreign_apex()
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")  # communication starts in the order it was asked for
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")  # Megatron names each package for accelerators that is missing
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        if not has_gpu():
            stack.enter_context(_replaced(torch, {"compile": _uncompiled}))
        for module in _HEAVY:
            importlib.import_module(module)
    gc.freeze()  # what was imported stays: without this, Megatron's collection at each save looks at all of it, 0.5 s
    logging.getLogger("megatron").setLevel(os.environ.get("MEGATRON_LOG_LEVEL", "ERROR"))


@contextlib.contextmanager
def stand_in() -> Iterator[None]:
    """Lets the CPU answer what Megatron asks of torch.cuda, in this thread; on a GPU only rotation is answered here."""
    from megatron.core.fusions import fused_bias_swiglu
    from megatron.core.models.common.embeddings import rope_utils
    from megatron.core.tensor_parallel import random as megatron_random

    from parallelism import elementwise

    with _replaced(rope_utils, {"_apply_rotary_pos_emb_bshd": elementwise.rotated}):
        if has_gpu():
            yield
            return
        with _cpu_answers(fused_bias_swiglu, megatron_random):
            yield


@contextlib.contextmanager
def _cpu_answers(fused_bias_swiglu: Any, megatron_random: Any) -> Iterator[None]:
    from parallelism import elementwise

    activation = {"swiglu": elementwise.swiglu, "swiglu_back": elementwise.swiglu_back}
    generator = {
        "_get_cuda_rng_state": lambda *_, **__: torch.get_rng_state(),
        "_set_cuda_rng_state": lambda state, *_, **__: torch.set_rng_state(state),
    }
    exchange = {"all_to_all_single": _with_listed_splits(torch.distributed.all_to_all_single)}
    with (
        _replaced(torch.cuda, _CUDA_ANSWERS),
        _replaced(torch.distributed, exchange),
        _replaced(megatron_random, generator),
        _replaced(fused_bias_swiglu, activation),
        _CpuForCuda(),
    ):
        yield


class _CpuForCuda(TorchFunctionMode):
    """Reads "cuda" as "cpu" wherever a device is named, and answers Tensor.type() as Megatron's asserts expect."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.cuda:
            return args[0]
        answer = func(*map(_on_cpu, args), **_keywords_on_cpu(kwargs or {}))
        if func is torch.Tensor.type and isinstance(answer, str):
            return answer.replace("torch.", "torch.cuda.", 1)
        return answer


class _Idle:
    """A stream or an event of a device that never runs behind: every method gives another and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __getattr__(self, _: str) -> "Callable[..., _Idle]":
        return _Idle


def _with_listed_splits(exchange: Callable[..., Any]) -> Callable[..., Any]:
    """Lets Megatron name the sizes of an exchange in tensors: it turns only those that come from a GPU into numbers."""

    def all_to_all_single(*args: Any, **kwargs: Any) -> Any:
        listed = {key: value.tolist() if isinstance(value, torch.Tensor) else value for key, value in kwargs.items()}
        return exchange(*args, **listed)

    return all_to_all_single


@contextlib.contextmanager
def _replaced(owner: Any, answers: Mapping[str, Any]) -> Iterator[None]:
    kept = {attribute: getattr(owner, attribute) for attribute in answers}
    for attribute, answer in answers.items():
        setattr(owner, attribute, answer)
    try:
        yield
    finally:
        for attribute, answer in kept.items():
            setattr(owner, attribute, answer)


def _uncompiled(function: Any = None, **_: Any) -> Any:
    return function if function is not None else lambda decorated: decorated


def _on_cpu(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("cuda"):
        return "cpu"
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("cpu")
    return value


def _keywords_on_cpu(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _on_cpu(value) for key, value in kwargs.items() if key != "pin_memory"}


_CUDA_ANSWERS: Mapping[str, Any] = {
    "Event": _Idle,
    "Stream": _Idle,
    "current_device": lambda: torch.device("cpu"),
    "current_stream": _Idle,
    "empty_cache": lambda: None,
    "get_rng_state": lambda *_: torch.get_rng_state(),
    "manual_seed": torch.manual_seed,
    "set_device": lambda _: None,
    "set_rng_state": lambda state, *_: torch.set_rng_state(state),
    "stream": lambda _: contextlib.nullcontext(),
    "synchronize": lambda *_: None,
}
