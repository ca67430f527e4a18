"""Sizes as config.json and back, and each config that asks for what this decoder does not do."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from parallelism import hf_config
from parallelism.hf_config import Described, HFError
from parallelism.presets import PRESETS, Experts, ModelShape, preset

BIASED = replace(preset("demo"), add_qkv_bias=True)


def _values(shape: ModelShape, **changes: Any) -> dict[str, Any]:
    kind = changes.pop("kind", hf_config.usual_kind(shape))
    made = hf_config.to_config(shape, kind=kind, vocab_size=704, max_tokens=256, eod_id=1, pad_id=2)
    return {**made, **changes}


def _read(folder: Path, values: dict[str, Any]) -> Described:
    (folder / "config.json").write_text(json.dumps(values))
    return hf_config.read(folder)


@pytest.mark.parametrize("name", PRESETS)
def test_every_named_size_comes_back(name: str, tmp_path: Path) -> None:
    shape = preset(name)
    assert not [*hf_config.kind_problems(shape, kind=hf_config.usual_kind(shape))]
    found = _read(tmp_path, _values(shape))
    assert found.vocab_size == 704
    assert hf_config.differences(found, wanted=shape, vocab_size=None) == []


def test_a_biased_model_is_a_llama_or_a_qwen2(tmp_path: Path) -> None:
    for kind in ("llama", "qwen2"):
        found = _read(tmp_path, _values(BIASED, kind=kind))
        assert found.kind == kind
        assert hf_config.differences(found, wanted=BIASED, vocab_size=704) == []


def test_files_from_before_transformers_5_say_the_same(tmp_path: Path) -> None:
    values = _values(preset("smollm2_135m"), rms_norm_eps=9.999999747378752e-06, rope_theta=100_000, rope_scaling=None)
    del values["rope_parameters"]
    assert hf_config.differences(_read(tmp_path, values), wanted=preset("smollm2_135m"), vocab_size=None) == []


def test_what_is_left_out_means_what_transformers_takes_it_for(tmp_path: Path) -> None:
    values = _values(preset("demo"))
    for name in ("head_dim", "attention_bias", "rms_norm_eps", "rope_parameters", "tie_word_embeddings"):
        del values[name]
    found = _read(tmp_path, values).shape
    assert found == replace(preset("demo"), max_position_embeddings=256, layernorm_epsilon=1e-6)


def test_a_folder_without_a_known_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        HFError, match=r"config.json: must be a Hugging Face model's config, but is not there; mend the"
    ):
        hf_config.read(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(HFError, match=r"config.json: must be a JSON object, but is not \(.*\); fetch it again"):
        hf_config.read(tmp_path)
    with pytest.raises(
        HFError, match=r"must give vocab_size, hidden_size, .*, n_shared_experts, but does not; fetch it"
    ):
        _read(tmp_path, {"model_type": "deepseek_v3"})
    with pytest.raises(HFError, match=r"model_type must be one of llama, qwen2, deepseek_v3, but is 'gpt2'; convert"):
        _read(tmp_path, {"model_type": "gpt2"})


@pytest.mark.parametrize(
    ("name", "changes", "line"),
    [
        ("demo", {"hidden_act": "gelu"}, "hidden_act must be silu, but is gelu"),
        ("demo", {"mlp_bias": True}, "mlp_bias must be False, but is True"),
        ("demo", {"use_sliding_window": True}, "use_sliding_window must be False, but is True"),
        ("demo", {"rope_scaling": {"type": "yarn"}, "rope_parameters": None}, "rope_type must be default, but is yarn"),
        ("demo_moe", {"q_lora_rank": 64}, "q_lora_rank must be None, but is 64"),
        ("demo_moe", {"rope_interleave": False}, "rope_interleave must be True, but is False"),
        ("demo_moe", {"rms_norm_eps": 1e-5}, "rms_norm_eps must be 1e-06, but is 1e-05"),
        ("demo_moe", {"norm_topk_prob": False}, "norm_topk_prob must be True, but is False"),
        ("demo_moe", {"n_group": 4, "topk_group": 2}, "topk_group must be 4, but is 2"),
    ],
)
def test_a_config_that_asks_for_more_is_refused(name: str, changes: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(HFError, match=f"must ask only for what this decoder does, but {line}"):
        _read(tmp_path, _values(preset(name), **changes))


MIXED = preset("demo_moe")
MIXED_EXPERTS = Experts(
    num_moe_experts=4, moe_router_topk=2, moe_ffn_hidden_size=128, moe_shared_expert_intermediate_size=128
)


@pytest.mark.parametrize(
    ("shape", "kind", "line"),
    [
        (MIXED, "llama", "llama must have neither latent attention nor experts, but this model has; write deepseek_v3"),
        (replace(MIXED, latent=None), "deepseek_v3", "must have latent attention and experts, but this model has not"),
        (
            replace(MIXED, layernorm_epsilon=1e-5),
            "deepseek_v3",
            "must have layernorm_epsilon 1e-06, which transformers",
        ),
        (
            replace(MIXED, experts=replace(MIXED_EXPERTS, moe_shared_expert_intermediate_size=200)),
            "deepseek_v3",
            "must have shared experts as wide as some of the others, 128 each, but they are 200 wide; change moe",
        ),
        (preset("demo"), "qwen2", "qwen2 must have a bias on queries, keys and values, but this model has none; write"),
        (
            replace(BIASED, kv_channels=16),
            "qwen2",
            "qwen2 must have heads as wide as hidden_size 128 together, but they are 64 wide; write llama",
        ),
    ],
)
def test_a_size_without_a_type_is_told_why(shape: ModelShape, kind: Any, line: str) -> None:
    (found,) = hf_config.kind_problems(shape, kind=kind)
    assert line in found


def test_only_safetensors_are_weights(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(
        HFError,
        match=r"must hold its weights as model.safetensors, but holds pytorch_model.bin; fetch them as safetens",
    ):
        hf_config.weight_files(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert hf_config.weight_files(tmp_path) == ["model.safetensors"]
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "../two.safetensors"}}))
    (tmp_path / "one.safetensors").touch()
    with pytest.raises(HFError, match=r"must hold its weights as ../two.safetensors, but holds pytorch_model.bin"):
        hf_config.weight_files(tmp_path)


@pytest.mark.parametrize("text", ["[1]", '{"metadata": {}}', '{"weight_map": []}', "half {"])
def test_a_damaged_list_of_files_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(HFError, match=r"index.json: must be a JSON object with a weight_map, but is not .*; fetch it"):
        hf_config.weight_files(tmp_path)


@pytest.mark.parametrize("text", ["[1]", "1", "half {"])
def test_a_config_that_is_no_object_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(HFError, match=r"config.json: must be a JSON object, but is not .*; fetch it again"):
        hf_config.read(tmp_path)
