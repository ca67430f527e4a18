"""The decoder as Megatron's GPTModel, cut for one rank, with first weights that do not depend on how it is cut."""

import hashlib
import math
from collections.abc import Iterator
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
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from parallelism import device
from parallelism.attention import CausalAttention
from parallelism.layout import Layout, Precision
from parallelism.presets import ModelShape, padded_vocab_size

_DRAW_ROWS = 1024
"""Rows of a weight that are drawn at once: memory stays small, and a rank skips the rows that others hold."""


class Norm(torch.nn.RMSNorm):
    """RMSNorm that tells Megatron to sum its gradient over the ranks that each see a part of the sequence.

    Megatron's own choice refuses sequence parallelism, and is made for LayerNorm alone where apex is installed.
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        """Takes the arguments that Megatron builds norms with."""
        super().__init__(hidden_size, eps=eps, device=device.current(), dtype=config.params_dtype)
        setattr(self.weight, "sequence_parallel", config.sequence_parallel)  # noqa: B010 - a mark that Megatron reads


def transformer_config(shape: ModelShape, *, layout: Layout, precision: Precision) -> TransformerConfig:
    """Returns Megatron's description of `shape` under `layout`."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    interleaved = layout.num_model_chunks > 1
    recompute = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
    return TransformerConfig(
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
        # torch.compile builds these fusions on a GPU; on a CPU they cost 15 s and give no speed.
        bias_activation_fusion=device.has_gpu(),
        bias_dropout_fusion=device.has_gpu(),
        # These need kernels that only apex or TransformerEngine bring.
        gradient_accumulation_fusion=False,
        masked_softmax_fusion=False,
        persist_layer_norm=False,
        tensor_model_parallel_size=layout.tensor_model_parallel_size,
        pipeline_model_parallel_size=layout.pipeline_model_parallel_size,
        virtual_pipeline_model_parallel_size=layout.virtual_pipeline_model_parallel_size,
        context_parallel_size=layout.context_parallel_size,
        sequence_parallel=layout.sequence_parallel,
        # With 2 stages and batched sends, the interleaved schedule cannot tell its two neighbours apart: the loss is
        # silently wrong (NVIDIA/Megatron-LM issue 750). Separate sends are exact for every number of stages.
        overlap_p2p_comm=interleaved,
        batch_p2p_comm=not interleaved,
        **(recompute if layout.recompute_granularity == "full" else {}),
    )


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
        _layers(config, stage=stage),
        vocab_size=padded_vocab_size(vocab_size),
        max_sequence_length=seq_length,
        pre_process=parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=stage),
        post_process=parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=stage),
        share_embeddings_and_output_weights=shape.share_embeddings_and_output_weights,
        position_embedding_type="rope",
        rotary_base=shape.rotary_base,
        vp_stage=stage,
    ).to(device.current())


def _layers(config: TransformerConfig, *, stage: int | None) -> TransformerBlockSubmodules:
    spec: ModuleSpec = get_gpt_layer_local_spec(normalization="RMSNorm")
    spec.submodules.input_layernorm = Norm
    spec.submodules.pre_mlp_layernorm = Norm
    spec.submodules.self_attention.submodules.core_attention = CausalAttention
    count = get_num_layers_to_build(config, vp_stage=stage)
    return TransformerBlockSubmodules(layer_specs=[spec] * count, layer_norm=Norm)


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
    for name, whole_columns, offsets, local in _parts(chunk):
        if local.ndim == 1:
            local.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        residual = name.endswith(("linear_proj.weight", "linear_fc2.weight"))
        scale = deviation / math.sqrt(2 * num_layers) if residual else deviation
        _draw(local, key=f"{seed}/{name}", offsets=offsets, columns=whole_columns, scale=scale)


def _parts(chunk: MegatronModule) -> Iterator[tuple[str, int, tuple[int, ...], Tensor]]:
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
