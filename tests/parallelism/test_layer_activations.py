"""What a layer of the real model keeps for its backward pass is what cost.py says, to the byte."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from parallelism import device, launch
from parallelism.cost.memory import layer_activations
from parallelism.layout import Layout, Precision
from parallelism.presets import ModelShape, preset

device.prepare()

from megatron.core import parallel_state  # noqa: E402 - prepared above
from megatron.core.fusions.fused_bias_swiglu import bias_swiglu_impl  # noqa: E402
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed  # noqa: E402

from parallelism.model import build  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # the engines call each other's deprecated parts

LAYOUT = Layout(world_size=1, global_batch_size=2, micro_batch_size=2, seq_length=256)


@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_layer_keeps_what_is_planned(in_child: Callable[..., Any], groups: int, precision: Precision) -> None:
    shape = replace(preset("demo"), num_query_groups=groups)
    found = in_child(_one_layer, shape, precision)
    assert found == layer_activations(shape, layout=LAYOUT, precision=precision, fused=device.has_gpu())


def _one_layer(shape: ModelShape, precision: Precision) -> int:
    """Returns what three layers keep and two do not, on one rank."""
    with device.stand_in(), launch.joined(launch.place({})):
        parallel_state.initialize_model_parallel()
        model_parallel_cuda_manual_seed(1)
        two, three = (_kept(replace(shape, num_layers=count), precision=precision) for count in (2, 3))
    return three - two


def test_fused_kernels_keep_their_inputs_only() -> None:
    """A GPU's norm is asked without a GPU: its tensors have no storage."""
    with FakeTensorMode():
        norm = torch.nn.RMSNorm(128, device="cuda", dtype=torch.bfloat16)
        entering = torch.randn(512, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        assert _saved(lambda: norm(entering), parameters=norm.parameters()) == 512 * (128 * 2 + 4)
    projected = torch.randn(256, 2, 768, dtype=torch.bfloat16, requires_grad=True)
    assert _saved(lambda: bias_swiglu_impl(projected, None)) == projected.nbytes


def _kept(shape: ModelShape, *, precision: Precision) -> int:
    (chunk,) = build(shape, layout=LAYOUT, precision=precision, vocab_size=512, seq_length=256, seed=0)
    tokens = torch.zeros(2, 256, dtype=torch.long)
    positions = torch.arange(256).expand(2, 256)
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
