"""A model's size as a Hugging Face config.json and back, without transformers: planning reads it too.

Three types are known. `llama` is RMSNorm, grouped-query attention and a gated MLP (Llama, SmolLM2, Mistral's shape);
`qwen2` is the same with a bias on queries, keys and values; `deepseek_v3` is latent attention and experts.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from parallelism.presets import Experts, LatentAttention, ModelShape

Kind = Literal["llama", "qwen2", "deepseek_v3"]
CONFIG = "config.json"
_ONE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_EPSILON = 1e-6
"""Transformers' own choice. It norms the latent with this whatever rms_norm_eps says, where others follow that."""
_UNSEEN = ("max_position_embeddings", "moe_router_bias_update_rate")
"""What no weight and no logit depends on."""

_NEEDED = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    "max_position_embeddings",
)
_NEEDED_TOO = (
    *("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "first_k_dense_replace"),
    *("n_routed_experts", "num_experts_per_tok", "moe_intermediate_size", "n_shared_experts"),
)


class HFError(ValueError):
    """A Hugging Face folder and a model's size do not fit each other."""


@dataclass(frozen=True, kw_only=True)
class Described:
    """What a config.json says."""

    kind: Kind
    shape: ModelShape
    vocab_size: int


def usual_kind(shape: ModelShape) -> Kind:
    """Returns the type that a model of this size is written as unless another is asked for.

    A bias makes it no Qwen2: transformers 5 replaces the tokenizer of whatever says that it is one.
    """
    return "deepseek_v3" if shape.latent or shape.experts else "llama"


def kind_problems(shape: ModelShape, *, kind: Kind) -> Iterator[str]:
    """Yields why a model of this size cannot be written as `kind`."""
    if kind != "deepseek_v3":
        yield from _dense_problems(shape, kind=kind)
    elif shape.latent is None or shape.experts is None:
        yield "deepseek_v3 must have latent attention and experts, but this model has not both; write llama"
    else:
        width, shared = shape.experts.moe_ffn_hidden_size, shape.experts.moe_shared_expert_intermediate_size
        if shared % width or not shared:
            yield (
                f"deepseek_v3 must have shared experts as wide as some of the others, {width} each, but they are "
                f"{shared} wide; change moe_shared_expert_intermediate_size"
            )
        if shape.layernorm_epsilon != _EPSILON:
            yield (
                f"deepseek_v3 must have layernorm_epsilon {_EPSILON:g}, which transformers fixes for the "
                f"latent, but it is {shape.layernorm_epsilon:g}; change it in the model's size"
            )


def _dense_problems(shape: ModelShape, *, kind: Kind) -> Iterator[str]:
    if shape.latent or shape.experts:
        yield f"{kind} must have neither latent attention nor experts, but this model has; write deepseek_v3"
    elif kind == "qwen2" and not shape.add_qkv_bias:
        yield "qwen2 must have a bias on queries, keys and values, but this model has none; write llama"
    elif kind == "qwen2" and shape.num_attention_heads * shape.kv_channels != shape.hidden_size:
        yield (
            f"qwen2 must have heads as wide as hidden_size {shape.hidden_size} together, but they are "
            f"{shape.num_attention_heads * shape.kv_channels} wide; write llama"
        )


def to_config(
    shape: ModelShape, *, kind: Kind, vocab_size: int, max_tokens: int, eod_id: int | None, pad_id: int | None
) -> dict[str, Any]:
    """Returns the values of config.json; the type is under `model_type`.

    Args:
        shape: the model's size.
        kind: one that `kind_problems` has nothing against.
        vocab_size: the tokenizer's, not padded.
        max_tokens: the longest text that the model has learned from.
        eod_id: the token that ends a document, and generation.
        pad_id: the token that fills batches.
    """
    common = {
        "model_type": kind,
        "vocab_size": vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.ffn_hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_attention_heads,
        "max_position_embeddings": max_tokens,
        "rms_norm_eps": shape.layernorm_epsilon,
        "rope_parameters": {"rope_type": "default", "rope_theta": float(shape.rotary_base)},
        "tie_word_embeddings": shape.share_embeddings_and_output_weights,
        "bos_token_id": None,
        "eos_token_id": eod_id,
        "pad_token_id": pad_id,
    }
    if shape.latent and shape.experts:
        return {**common, **_to_deepseek(shape, latent=shape.latent, experts=shape.experts)}
    own = {"head_dim": shape.kv_channels, "attention_bias": shape.add_qkv_bias} if kind == "llama" else {}
    return {**common, "num_key_value_heads": shape.num_query_groups, **own}


def _to_deepseek(shape: ModelShape, *, latent: LatentAttention, experts: Experts) -> dict[str, Any]:
    return {
        "num_key_value_heads": shape.num_attention_heads,
        "q_lora_rank": None,
        "kv_lora_rank": latent.kv_lora_rank,
        "qk_nope_head_dim": latent.qk_head_dim,
        "qk_rope_head_dim": latent.qk_pos_emb_head_dim,
        "v_head_dim": latent.v_head_dim,
        "rope_interleave": True,
        "attention_bias": False,
        "first_k_dense_replace": experts.first_k_dense,
        "n_routed_experts": experts.num_moe_experts,
        "num_experts_per_tok": experts.moe_router_topk,
        "moe_intermediate_size": experts.moe_ffn_hidden_size,
        "n_shared_experts": experts.moe_shared_expert_intermediate_size // experts.moe_ffn_hidden_size,
        "routed_scaling_factor": experts.moe_router_topk_scaling_factor,
        "norm_topk_prob": experts.moe_router_topk > 1,  # as Megatron does
        "n_group": 1,
        "topk_group": 1,
        "num_nextn_predict_layers": 0,
        # vLLM and the older remote code read these, transformers 5 does not.
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "moe_layer_freq": 1,
    }


def read(folder: Path) -> Described:
    """Reads config.json; every mistake in it comes in one error.

    Raises:
        HFError: there is none, it is of another type, or it asks for what this decoder does not do.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise HFError(f"{path}: must be a Hugging Face model's config, but is not there; mend the path")
    try:
        config = dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise HFError(f"{path}: must be a JSON object, but is not ({error}); fetch it again") from error
    kind: Any = config.get("model_type")
    if kind not in get_args(Kind):
        raise HFError(
            f"{path}: model_type must be one of {', '.join(get_args(Kind))}, but is {kind!r}; "
            "convert the model to one of these, or choose another"
        )
    missing = [name for name in (*_NEEDED, *(_NEEDED_TOO if kind == "deepseek_v3" else ())) if config.get(name) is None]
    if missing:
        raise HFError(f"{path}: must give {', '.join(missing)}, but does not; fetch it again")
    problems = list(_unsupported(config, kind=kind))
    if problems:
        raise HFError(f"{path}: must ask only for what this decoder does, but " + "; ".join(problems))
    return Described(kind=kind, shape=from_config(config, kind=kind), vocab_size=config["vocab_size"])


def weight_files(folder: Path) -> list[str]:
    """Returns the names of the files with a model's weights, sorted.

    Raises:
        HFError: there are none in safetensors.
    """
    index = folder / _INDEX
    try:
        listed = json.loads(index.read_text())["weight_map"].values() if index.is_file() else [_ONE]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise HFError(f"{index}: must be a JSON object with a weight_map, but is not ({error!r}); fetch it") from error
    names = sorted(map(str, set(listed)))
    missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if missing:
        others = ", ".join(sorted(path.name for path in folder.glob("*.bin"))) or "nothing else"
        raise HFError(
            f"{folder}: must hold its weights as {missing[0]}, but holds {others}; fetch them as safetensors, or "
            "convert them where they come from, as no other format is read"
        )
    return names


def from_config(config: Mapping[str, Any], *, kind: Kind) -> ModelShape:
    """Returns the size that the values of a config.json describe; `read` checks that it describes them all."""
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    groups = config.get("num_key_value_heads") or heads
    return ModelShape(
        num_layers=config["num_hidden_layers"],
        hidden_size=hidden,
        ffn_hidden_size=config["intermediate_size"],
        num_attention_heads=heads,
        num_query_groups=groups,
        kv_channels=hidden // heads if kind == "deepseek_v3" else config.get("head_dim") or hidden // heads,
        max_position_embeddings=config["max_position_embeddings"],
        rotary_base=int(_rope(config)["rope_theta"]),
        layernorm_epsilon=_rounded(config.get("rms_norm_eps", _EPSILON)),
        share_embeddings_and_output_weights=config.get("tie_word_embeddings", False),
        add_qkv_bias=kind == "qwen2" or (kind == "llama" and config.get("attention_bias", False)),
        latent=_latent(config) if kind == "deepseek_v3" else None,
        experts=_experts(config) if kind == "deepseek_v3" else None,
    )


def _latent(config: Mapping[str, Any]) -> LatentAttention:
    return LatentAttention(
        kv_lora_rank=config["kv_lora_rank"],
        qk_head_dim=config["qk_nope_head_dim"],
        qk_pos_emb_head_dim=config["qk_rope_head_dim"],
        v_head_dim=config["v_head_dim"],
    )


def _experts(config: Mapping[str, Any]) -> Experts:
    return Experts(
        num_moe_experts=config["n_routed_experts"],
        moe_router_topk=config["num_experts_per_tok"],
        moe_ffn_hidden_size=config["moe_intermediate_size"],
        moe_shared_expert_intermediate_size=config["moe_intermediate_size"] * config["n_shared_experts"],
        first_k_dense=config["first_k_dense_replace"],
        moe_router_topk_scaling_factor=_rounded(config.get("routed_scaling_factor", 1.0)),
    )


def _rounded(value: float) -> float:
    """Returns the number that was meant: some files went through a single precision float."""
    return float(f"{value:.6g}")


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary settings by their new names; files from before transformers 5 spell them in two places."""
    new = dict(config.get("rope_parameters") or {})
    old = dict(config.get("rope_scaling") or {})
    theta = new.get("rope_theta", config.get("rope_theta", 10_000.0))
    kind = new.get("rope_type") or old.get("rope_type") or old.get("type") or "default"
    return {"rope_theta": theta, "rope_type": kind}


def _unsupported(config: Mapping[str, Any], *, kind: Kind) -> Iterator[str]:
    """Yields what a config asks for that this decoder would not do, or would do otherwise."""
    rope = _rope(config)
    wanted: dict[str, tuple[Any, Any]] = {
        "rope_type": (rope["rope_type"], "default"),
        "rope_theta": (rope["rope_theta"], int(rope["rope_theta"])),
        "hidden_act": (config.get("hidden_act", "silu"), "silu"),
        "mlp_bias": (config.get("mlp_bias", False), False),
        "use_sliding_window": (config.get("use_sliding_window", False), False),
    }
    if kind == "deepseek_v3":
        wanted |= {
            "q_lora_rank": (config.get("q_lora_rank"), None),
            "rope_interleave": (config.get("rope_interleave", True), True),
            "attention_bias": (config.get("attention_bias", False), False),
            "rms_norm_eps": (_rounded(config.get("rms_norm_eps", _EPSILON)), _EPSILON),
            "norm_topk_prob": (config.get("norm_topk_prob", True), config["num_experts_per_tok"] > 1),
            "topk_group": (config.get("topk_group", 1), config.get("n_group", 1)),
        }
    for name, (found, needed) in wanted.items():
        if found != needed:
            yield f"{name} must be {needed}, but is {found}"


def differences(found: Described, *, wanted: ModelShape, vocab_size: int | None) -> list[str]:
    """Returns what keeps a model from being the first weights of one of size `wanted`, each in Megatron's words.

    The vocabulary may grow; it is not compared where the tokenizer's size is not known yet.
    """
    ours, theirs = _facts(wanted), _facts(found.shape)
    lines = [
        f"{name} must be {ours.get(name)}, but is {theirs.get(name)}"
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name) != theirs.get(name)
    ]
    if vocab_size is not None and found.vocab_size > vocab_size:
        lines.append(f"vocab_size must be at most the tokenizer's {vocab_size}, but is {found.vocab_size}")
    return lines


def _facts(shape: ModelShape) -> dict[str, Any]:
    """What weights and logits depend on, flat."""
    values = asdict(shape)
    parts = [values.pop(name) or {} for name in ("latent", "experts")]
    without = ("num_query_groups", "kv_channels") if shape.latent else ()
    flat = {**values, **parts[0], **parts[1]}
    return {name: value for name, value in flat.items() if name not in (*_UNSEEN, *without)}
