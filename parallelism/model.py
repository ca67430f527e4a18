"""The decoder as Megatron's GPTModel, cut for one rank, with first weights that do not depend on how it is cut."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedTensor, apply_factories
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.transformer.module import Float16Module, MegatronModule
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import MLATransformerConfig, TransformerConfig
from megatron.core.transformer.transformer_layer import get_transformer_layer_offset
from torch import Tensor

from parallelism import device
from parallelism.attention import CausalAttention
from parallelism.elementwise import rms_norm
from parallelism.latent import LatentAttention
from parallelism.layout import Layout, Precision
from parallelism.presets import ModelShape, padded_vocab_size

_DRAW_ROWS = 1024
"""Rows of a weight that are drawn at once: memory stays small, and a rank skips the rows that others hold."""


class Norm(torch.nn.Module):
    """RMSNorm that tells Megatron to sum its gradient over the ranks that each see a part of the sequence.

    Megatron's own choice refuses sequence parallelism, and is made for LayerNorm alone where apex is installed.
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        """Takes the arguments that Megatron builds norms with."""
        super().__init__()
        self.eps = eps
        self.weight = torch.nn.Parameter(torch.ones(hidden_size, device=device.current(), dtype=config.params_dtype))
        setattr(self.weight, "sequence_parallel", config.sequence_parallel)  # noqa: B010 - a mark that Megatron reads

    def forward(self, values: Tensor) -> Tensor:
        """Returns values / rms x weight over the last dimension; a GPU has one kernel for it."""
        if values.is_cuda:
            return torch.nn.functional.rms_norm(values, self.weight.shape, self.weight, self.eps)
        return rms_norm(values, self.weight, eps=self.eps)


def transformer_config(shape: ModelShape, *, layout: Layout, precision: Precision) -> TransformerConfig:
    """Returns Megatron's description of `shape` under `layout`."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    kind = MLATransformerConfig if shape.latent else TransformerConfig
    return kind(
        num_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        ffn_hidden_size=shape.ffn_hidden_size,
        num_attention_heads=shape.num_attention_heads,
        num_query_groups=shape.num_query_groups,
        kv_channels=shape.kv_channels,
        layernorm_epsilon=shape.layernorm_epsilon,
        normalization="RMSNorm",
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        add_bias_linear=False,
        add_qkv_bias=shape.add_qkv_bias,
        attention_dropout=0.0,
        hidden_dropout=0.0,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=precision == "bf16",
        perform_initialization=False,
        cuda_graph_modules=[],  # none is captured; Megatron's own default makes it warn
        calculate_per_token_loss=True,
        bias_activation_fusion=True,  # on a CPU its kernels are those of elementwise.py
        bias_dropout_fusion=device.has_gpu(),  # torch.compile builds it; on a CPU that takes 15 s and gives no speed
        # These need kernels that only apex or TransformerEngine bring.
        gradient_accumulation_fusion=False,
        masked_softmax_fusion=False,
        persist_layer_norm=False,
        **_latent(shape),
        **_experts(shape),
        **_parallel(layout),
        **_recompute(shape, layout=layout),
    )


def _latent(shape: ModelShape) -> dict[str, Any]:
    if shape.latent is None:
        return {}
    return {
        **asdict(shape.latent),
        "q_lora_rank": None,
        "rope_type": "rope",
        "rotary_base": shape.rotary_base,
        "mscale": 1.0,
        "mscale_all_dim": 0.0,
        "rotary_scaling_factor": 1.0,  # Megatron scales attention by it, though only yarn has one
    }


def _experts(shape: ModelShape) -> dict[str, Any]:
    if shape.experts is None:
        return {}
    settings = asdict(shape.experts)
    del settings["first_k_dense"]
    return {
        **settings,
        "moe_layer_freq": [int(shape.has_experts(layer)) for layer in range(shape.num_layers)],
        "moe_router_score_function": "sigmoid",
        "moe_router_enable_expert_bias": True,
        "moe_router_load_balancing_type": "none",  # the bias balances
        "moe_router_dtype": "fp32",
        "moe_token_dispatcher_type": "alltoall",
    }


def _parallel(layout: Layout) -> dict[str, Any]:
    interleaved = layout.num_model_chunks > 1
    return {
        "tensor_model_parallel_size": layout.tensor_model_parallel_size,
        "pipeline_model_parallel_size": layout.pipeline_model_parallel_size,
        "virtual_pipeline_model_parallel_size": layout.virtual_pipeline_model_parallel_size,
        "context_parallel_size": layout.context_parallel_size,
        "expert_model_parallel_size": layout.expert_model_parallel_size,
        "expert_tensor_parallel_size": 1,
        "sequence_parallel": layout.sequence_parallel,
        # With 2 stages and batched sends, the interleaved schedule cannot tell its two neighbours apart: the loss is
        # silently wrong (NVIDIA/Megatron-LM issue 750). Separate sends are exact for every number of stages.
        "overlap_p2p_comm": interleaved,
        "batch_p2p_comm": not interleaved,
    }


def _recompute(shape: ModelShape, *, layout: Layout) -> dict[str, Any]:
    if layout.recompute_granularity == "full":
        return {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
    if layout.recompute_granularity == "selective":
        return {"recompute_granularity": "selective", "recompute_modules": ["mlp", "moe"] if shape.experts else ["mlp"]}
    return {}


def build(
    shape: ModelShape, *, layout: Layout, precision: Precision, vocab_size: int, seq_length: int, seed: int
) -> list[MegatronModule]:
    """Returns this rank's pieces of the model, in Megatron's order, with their first weights.

    Needs Megatron's parallel state. `vocab_size` is the tokenizer's; the tables are padded.
    """
    config = transformer_config(shape, layout=layout, precision=precision)
    chunks = []
    for number in range(layout.num_model_chunks):
        stage = number if layout.num_model_chunks > 1 else None
        chunk = _chunk(shape, config=config, vocab_size=vocab_size, seq_length=seq_length, stage=stage)
        set_first_weights(chunk, num_layers=shape.num_layers, hidden_size=shape.hidden_size, seed=seed)
        chunks.append(Float16Module(config, chunk) if precision == "bf16" else chunk)
    return chunks


def _chunk(
    shape: ModelShape, *, config: TransformerConfig, vocab_size: int, seq_length: int, stage: int | None
) -> GPTModel:
    return GPTModel(
        config,
        _layers(shape, config, stage=stage),
        vocab_size=padded_vocab_size(vocab_size),
        max_sequence_length=seq_length,
        pre_process=parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=stage),
        post_process=parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=stage),
        share_embeddings_and_output_weights=shape.share_embeddings_and_output_weights,
        position_embedding_type="none" if shape.latent else "rope",  # latent attention has its own
        rotary_base=shape.rotary_base,
        vp_stage=stage,
    ).to(device.current())


def _layers(shape: ModelShape, config: TransformerConfig, *, stage: int | None) -> TransformerBlockSubmodules:
    first = get_transformer_layer_offset(config, vp_stage=stage)
    numbers = range(first, first + get_num_layers_to_build(config, vp_stage=stage))
    specs = [_layer(shape, experts=shape.has_experts(number)) for number in numbers]
    return TransformerBlockSubmodules(layer_specs=specs, layer_norm=Norm)


def _layer(shape: ModelShape, *, experts: bool) -> ModuleSpec:
    spec: ModuleSpec = get_gpt_layer_local_spec(
        num_experts=shape.experts.num_moe_experts if shape.experts and experts else None,
        multi_latent_attention=shape.latent is not None,
        normalization="RMSNorm",
    )
    spec.submodules.input_layernorm = Norm
    spec.submodules.pre_mlp_layernorm = Norm
    attention = spec.submodules.self_attention
    attention.submodules.core_attention = CausalAttention
    if shape.latent:
        attention.module = LatentAttention
        attention.submodules.kv_layernorm = Norm
    return spec


def sharded_metadata() -> dict[str, Any]:
    """Returns how states are described for checkpoints: by their place in the whole model, whatever the layout."""
    return {
        "distrib_optim_sharding_type": "fully_reshardable",
        "chained_optim_avoid_prefix": True,
        "singleton_local_shards": False,
        "dp_cp_group": parallel_state.get_data_parallel_group(with_context_parallel=True),
    }


@torch.no_grad()
def set_first_weights(chunk: MegatronModule, *, num_layers: int, hidden_size: int, seed: int) -> None:
    """Fills every parameter with a pure function of (seed, name in the whole model, position in the whole tensor).

    Matrices are normal with standard deviation sqrt(2 / (5 hidden_size)) (Nguyen and Salazar 2019, arXiv:1910.05895);
    those that write into the residual stream are divided by sqrt(2 num_layers) (GPT-2). Norms are 1 and biases 0.
    """
    deviation = math.sqrt(2 / (5 * hidden_size))
    for name, whole_columns, offsets, local in parts(chunk):
        if local.ndim == 1:
            local.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        residual = name.endswith(("linear_proj.weight", "linear_fc2.weight"))
        scale = deviation / math.sqrt(2 * num_layers) if residual else deviation
        _draw(local, key=f"{seed}/{name}", offsets=offsets, columns=whole_columns, scale=scale)


def parts(chunk: MegatronModule) -> Iterator[tuple[str, int, tuple[int, ...], Tensor]]:
    """Yields (layer/name, columns of the whole tensor, place in it, this rank's part) for each parameter."""
    states = chunk.sharded_state_dict(metadata=sharded_metadata())
    apply_factories(states)
    for part in nested_values(states):
        if isinstance(part, ShardedTensor):
            layers = part.prepend_axis_num
            name = "/".join([*map(str, part.global_offset[:layers]), part.key])
            yield name, part.global_shape[-1], part.global_offset[layers:], part.data


def _draw(local: Tensor, *, key: str, offsets: tuple[int, ...], columns: int, scale: float) -> None:
    """Fills `local`, (rows, columns) at `offsets` of the whole, from blocks of rows that each have their own seed."""
    first, left = offsets
    last = first + local.shape[0]
    for block in range(first // _DRAW_ROWS, -(-last // _DRAW_ROWS)):
        start = block * _DRAW_ROWS
        digest = hashlib.sha256(f"{key}/{block}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)
        drawn = torch.randn(_DRAW_ROWS, columns, generator=generator) * scale
        low, high = max(first, start), min(last, start + _DRAW_ROWS)
        local[low - first : high - first] = drawn[low - start : high - start, left : left + local.shape[1]].to(local)
