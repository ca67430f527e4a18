"""What a layer of the real model keeps for its backward pass is what parallelism/cost says, to the byte."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from parallelism import device, launch, tiles
from parallelism.cost import activations
from parallelism.cost.activations import layer_activations
from parallelism.layout import Layout, Precision
from parallelism.presets import ModelShape, preset

device.prepare()

from megatron.core.fusions.fused_bias_swiglu import bias_swiglu_impl  # noqa: E402 - prepared above

from parallelism import groups  # noqa: E402
from parallelism.model import build  # noqa: E402
from tests.parallelism.conftest import start_ranks  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # the engines call each other's deprecated parts

LAYOUT = Layout(world_size=1, global_batch_size=2, micro_batch_size=2, seq_length=256)
LONG = replace(LAYOUT, micro_batch_size=1, seq_length=1280)  # tiles at its end keep no weights
CASES = [
    *(("demo", groups, LAYOUT, precision) for groups in (2, 4) for precision in ("fp32", "bf16")),
    ("demo", 2, LONG, "bf16"),
    ("demo", 2, replace(LAYOUT, recompute_granularity="selective"), "bf16"),
    ("demo_moe", 4, LAYOUT, "fp32"),
    ("demo_moe", 4, LAYOUT, "bf16"),
    ("demo_moe", 4, replace(LAYOUT, recompute_granularity="selective"), "bf16"),
]
TP2 = {"tensor_model_parallel_size": 2}
RANKS: list[tuple[str, dict[str, Any]]] = [
    ("demo", TP2),
    ("demo", {**TP2, "sequence_parallel": True}),
    ("demo", {"context_parallel_size": 2}),
    ("demo_moe", {**TP2, "sequence_parallel": True, "expert_model_parallel_size": 2}),
    ("demo_moe", {"expert_model_parallel_size": 2}),
    ("demo_moe", {"context_parallel_size": 2}),
]


@pytest.mark.parametrize(("name", "key_groups", "layout", "precision"), CASES)
def test_a_layer_keeps_what_is_planned(
    in_child: Callable[..., Any], name: str, key_groups: int, layout: Layout, precision: Precision
) -> None:
    shape = replace(preset(name), num_query_groups=key_groups)
    found = in_child(_one_layer, shape, layout, precision)
    experts = shape.has_experts(2)
    assert found == layer_activations(
        shape, layout=layout, precision=precision, fused=device.has_gpu(), experts=experts
    )


def test_a_recomputed_layer_keeps_its_input(in_child: Callable[..., Any]) -> None:
    layout = replace(LAYOUT, recompute_granularity="full")
    found = in_child(_one_layer, preset("demo"), layout, "bf16")
    assert found == 2 * preset("demo").hidden_size * layout.rank_tokens


@pytest.mark.parametrize(("name", "sizes"), RANKS)
def test_ranks_keep_what_is_planned(name: str, sizes: dict[str, Any], tmp_path: Path) -> None:
    """Ranks together, since a rank's share of what goes to experts depends on the routing."""
    shape = preset(name)
    layout = Layout(world_size=2, global_batch_size=2, seq_length=256, **sizes)
    results = torch.multiprocessing.get_context("fork").SimpleQueue()
    handle = start_ranks(_rank, 2, shape, layout, f"file://{tmp_path}/meet", results)
    while not handle.join():
        pass
    planned = layer_activations(shape, layout=layout, fused=device.has_gpu(), experts=shape.has_experts(2))
    kept = dict(results.get() for _ in range(2))
    if layout.context_parallel_size > 1:  # the last tokens of a sequence keep fewer weights
        assert kept[0] == planned
    else:
        assert sum(kept.values()) == 2 * planned


def _rank(rank: int, shape: ModelShape, layout: Layout, rendezvous: str, results: Any) -> None:
    here = launch.Place(rank=rank, world_size=2, local_rank=rank, rendezvous=rendezvous)
    with device.stand_in(), launch.joined(here), groups.made(layout), groups.quiet():
        two, three = (_kept(replace(shape, num_layers=count), layout=layout, precision="bf16") for count in (2, 3))
    results.put((rank, three - two))


def test_tiles_are_those_of_attention() -> None:
    assert (activations.TILE, activations.KEPT_KEYS) == (tiles.TILE, tiles.KEPT_KEYS)


def _one_layer(shape: ModelShape, layout: Layout, precision: Precision) -> int:
    """Returns what three layers keep and two do not, on one rank."""
    with device.stand_in(), launch.joined(launch.place({})), groups.made(layout):
        two, three = (_kept(replace(shape, num_layers=count), layout=layout, precision=precision) for count in (2, 3))
    return three - two


def test_fused_kernels_keep_their_inputs_only(in_child: Callable[..., Any]) -> None:
    assert in_child(_fused_norm) == 512 * (128 * 2 + 4)
    projected = torch.randn(256, 2, 768, dtype=torch.bfloat16, requires_grad=True)
    assert _saved(lambda: bias_swiglu_impl(projected, None)) == projected.nbytes


def _fused_norm() -> int:
    """Asks a GPU's norm without a GPU: its tensors have no storage, but torch counts a GPU from then on, so no fork."""
    with FakeTensorMode():
        norm = torch.nn.RMSNorm(128, device="cuda", dtype=torch.bfloat16)
        entering = torch.randn(512, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        return _saved(lambda: norm(entering), parameters=norm.parameters())


def _kept(shape: ModelShape, *, layout: Layout, precision: Precision) -> int:
    batch, length = layout.micro_batch_size, layout.seq_length // layout.context_parallel_size
    (chunk,) = build(shape, layout=layout, precision=precision, vocab_size=512, seq_length=length, seed=0)
    tokens = torch.arange(batch * length).reshape(batch, length) % 512
    positions = torch.arange(length).expand(batch, length)
    return _saved(lambda: chunk(tokens, positions, None, labels=tokens), parameters=chunk.parameters())


def _saved(forward: Callable[[], Any], *, parameters: Any = ()) -> int:
    """Returns the bytes of the storages that `forward` saves for backward, those of `parameters` left out."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    for parameter in parameters:
        kept.pop(parameter.untyped_storage()._cdata, None)
    del result
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
