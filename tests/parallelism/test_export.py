"""Export: a checkpoint that four ranks trained tensor and pipeline parallel, as a model that transformers loads."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

from parallelism import device

device.prepare()

from parallelism import export as exporting  # noqa: E402 - prepared above
from parallelism.checkpoint import MANIFEST  # noqa: E402
from parallelism.export import (  # noqa: E402
    Agreement,
    Exported,
    ExportError,
    Form,
    agreement,
    export,
    read_weights,
)
from parallelism.hf import to_hf  # noqa: E402
from parallelism.presets import Experts, LatentAttention, ModelShape  # noqa: E402
from slurm.files import read_json  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # the engines call each other's deprecated parts

SEQ, VOCAB = 32, 200  # VOCAB is padded to 256.
LLAMA = ModelShape(
    num_layers=4,
    hidden_size=32,
    ffn_hidden_size=64,
    num_attention_heads=4,
    num_query_groups=2,
    kv_channels=8,
    max_position_embeddings=64,
)
MIXED = replace(
    LLAMA,
    num_query_groups=4,
    layernorm_epsilon=1e-6,
    latent=LatentAttention(kv_lora_rank=16, qk_head_dim=8, qk_pos_emb_head_dim=4, v_head_dim=8),
    experts=Experts(
        num_moe_experts=4, moe_router_topk=2, moe_ffn_hidden_size=32, moe_shared_expert_intermediate_size=32
    ),
)
SHAPES = {
    "plain": LLAMA,
    "biased": replace(LLAMA, add_qkv_bias=True, rotary_base=1_000_000),
    "half": LLAMA,
    "tied": replace(LLAMA, share_embeddings_and_output_weights=True, num_query_groups=4),
    "mixed": MIXED,
}
type Exporter = Callable[..., Exported]
TP2_PP2 = {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    words = Tokenizer(WordLevel({f"w{number}": number for number in range(VOCAB)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1", pad_token="w2").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(start_training: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The checkpoints of each shape after three steps of four ranks."""
    root = tmp_path_factory.mktemp("trained")
    settings: dict[str, dict[str, Any]] = {
        "tied": {"pipeline_model_parallel_size": 2},
        "half": {**TP2_PP2, "precision": "bf16"},
        "mixed": {**TP2_PP2, "sequence_parallel": True, "expert_model_parallel_size": 2, "precision": "bf16"},
    }
    attempts = {
        name: start_training(
            root / name, world_size=4, shape=shape, train_iters=3, lr=0.01, **settings.get(name, TP2_PP2)
        )
        for name, shape in SHAPES.items()
    }
    return {name: attempt.wait().checkpoint.path.parent for name, attempt in attempts.items()}


def samples() -> dict[str, NDArray[np.int64]]:
    draws = np.random.default_rng(0)
    return {"a": draws.integers(0, VOCAB, (3, SEQ)), "b": draws.integers(0, VOCAB, (1, 20))}


@pytest.fixture
def exported(in_child: Callable[..., Any], tokenizer: Path) -> Exporter:
    """Returns export() in a process of its own, with these tests' tokens and tokenizer."""
    return lambda *arguments, **settings: in_child(partial(_export, *arguments, **{"tokenizer": tokenizer, **settings}))


def _last(checkpoints: Path) -> str:
    """The digest that pretrain would have reported; none where there is no checkpoint."""
    found = sorted(checkpoints.glob("step_*"))
    return str(read_json(found[-1] / MANIFEST)["digest"]) if found else ""


def _export(
    checkpoints: Path,
    target: Path,
    *,
    tokenizer: Path,
    most: float = 1e-3,
    expected: str | None = None,
    form: Form | None = None,
) -> Exported:
    torch.set_num_threads(1)
    return export(
        checkpoints,
        expected=_last(checkpoints) if expected is None else expected,
        target=target,
        tokenizer=tokenizer,
        form=form,
        eod_id=1,
        pad_id=2,
        samples=samples(),
        max_logit_difference=most,
    )


@pytest.mark.parametrize("name", list(SHAPES))
def test_four_ranks_train_and_transformers_gives_their_logits(
    name: str, trained: dict[str, Path], tmp_path: Path, exported: Exporter
) -> None:
    done = exported(trained[name], tmp_path / "model")
    assert done.checkpoint.step == 3
    assert [item.tokens for item in done.agreement.values()] == [96, 20]
    for item in done.agreement.values():
        assert item.max_difference < 1e-5
        assert item.same_argmax == 1
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert loaded.dtype == (torch.bfloat16 if name in ("half", "mixed") else torch.float32)
    assert type(loaded).__name__ == ("DeepseekV3ForCausalLM" if name == "mixed" else "LlamaForCausalLM")
    zeros = 4 * 32 if name == "biased" else 0  # The bias that only transformers has.
    assert loaded.num_parameters() - zeros == done.parameters == SHAPES[name].parameters(VOCAB)
    assert (loaded.config.eos_token_id, loaded.config.pad_token_id) == (1, 2)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "model")) == VOCAB
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_experts_are_written_one_by_one_or_stacked(
    trained: dict[str, Path], tmp_path: Path, exported: Exporter
) -> None:
    """Either way transformers gives the same logits; the routers' biases stay fp32."""
    found = {}
    for experts in ("per_expert", "fused"):
        form = Form(kind="deepseek_v3", experts=experts)
        done = exported(trained["mixed"], tmp_path / experts, form=form)
        assert done.agreement["a"].max_difference < 1e-5
        found[experts] = load_file(tmp_path / experts / "model.safetensors")
    one, stacked = "model.layers.1.mlp.experts.2.down_proj.weight", "model.layers.1.mlp.experts.down_proj"
    assert torch.equal(found["per_expert"][one], found["fused"][stacked][2])
    assert set(found["per_expert"]) - set(found["fused"]) == {
        f"model.layers.{layer}.mlp.experts.{expert}.{name}_proj.weight"
        for layer in range(1, 4)
        for expert in range(4)
        for name in ("gate", "up", "down")
    }
    assert found["fused"]["model.layers.1.mlp.gate.e_score_correction_bias"].dtype == torch.float32


def test_a_biased_model_becomes_a_qwen2_where_its_tokenizer_may(
    trained: dict[str, Path], tmp_path: Path, exported: Exporter
) -> None:
    words = {f"w{number}": number for number in range(VOCAB - 1)} | {"<|endoftext|>": VOCAB - 1}
    Qwen2Tokenizer(vocab=words, merges=[]).save_pretrained(tmp_path / "tokenizer")
    form = Form(kind="qwen2")
    done = exported(trained["biased"], tmp_path / "model", form=form, tokenizer=tmp_path / "tokenizer")
    assert done.agreement["a"].max_difference < 1e-5
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert type(loaded).__name__ == "Qwen2ForCausalLM"
    assert loaded.num_parameters() == done.parameters
    own = json.loads((tmp_path / "tokenizer" / "tokenizer.json").read_text())
    own["pre_tokenizer"] = {"type": "Whitespace"}
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(json.dumps(own))
    with pytest.raises(ExportError, match=r"must load the tokenizer that made the shards, but it loads another one"):
        exported(trained["biased"], tmp_path / "other", form=form, tokenizer=tmp_path / "tokenizer")


def test_a_model_without_the_asked_form_is_refused(
    trained: dict[str, Path], tmp_path: Path, exported: Exporter
) -> None:
    must = r"^the model must have a form of Hugging Face's, but llama must have neither latent attention nor experts"
    with pytest.raises(ExportError, match=must):
        exported(trained["mixed"], tmp_path / "model", form=Form(kind="llama"))
    assert list(tmp_path.iterdir()) == []


def test_the_exported_model_appears_only_when_it_is_right(
    trained: dict[str, Path], tmp_path: Path, exported: Exporter
) -> None:
    must = r"^the exported model's logits must be within 0 of the trained model's, but differ by \S+ on a; nothing"
    with pytest.raises(ExportError, match=must):
        exported(trained["plain"], tmp_path / "model", most=0)
    assert list(tmp_path.iterdir()) == []


def test_another_checkpoint_than_the_reported_one_is_not_exported(
    trained: dict[str, Path], tmp_path: Path, exported: Exporter
) -> None:
    with pytest.raises(ExportError, match=r"must be the one that pretrain reported, but is another, of step 3; remove"):
        exported(trained["plain"], tmp_path / "model", expected="0" * 64)
    assert list(tmp_path.iterdir()) == []


def _agreement(checkpoints: Path, folder: Path) -> dict[str, Agreement]:
    with exporting.alone():
        return agreement(exporting._newest(checkpoints, expected=_last(checkpoints)), folder, samples=samples())


def test_a_wrong_weight_shows_in_the_logits(
    trained: dict[str, Path], tmp_path: Path, exported: Exporter, in_child: Callable[..., Any]
) -> None:
    exported(trained["plain"], tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    swapped = {"model.layers.2.mlp.gate_proj.weight": weights["model.layers.2.mlp.up_proj.weight"].clone()}
    save_file({**weights, **swapped}, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    found = in_child(_agreement, trained["plain"], tmp_path / "model")
    assert found["a"].max_difference > 1e-3


def test_an_older_export_is_replaced(trained: dict[str, Path], tmp_path: Path, exported: Exporter) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old.txt").touch()
    exported(trained["plain"], tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_nothing_damaged_is_read(trained: dict[str, Path], tmp_path: Path, exported: Exporter) -> None:
    checkpoints = tmp_path / "checkpoints"
    shutil.copytree(trained["plain"], checkpoints)
    (shard,) = sorted((checkpoints / "step_00000003").glob("__0_*"))[:1]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(
        ExportError, match=r"must hold a good checkpoint, but has none; set aside: .*__0_.*run pretrain again$"
    ):
        exported(checkpoints, tmp_path / "model")
    with pytest.raises(ExportError, match=r"must hold a good checkpoint, but has none; run pretrain again$"):
        exported(tmp_path / "nowhere", tmp_path / "model")


def test_weights_are_read_whole_and_cut_to_the_vocabulary(trained: dict[str, Path]) -> None:
    shape = SHAPES["biased"]
    weights = read_weights(trained["biased"] / "step_00000003")
    assert weights["embedding.word_embeddings.weight"].shape == (256, 32)
    assert weights["decoder.layers.self_attention.linear_qkv.weight"].shape == (4, 64, 32)
    named = to_hf(weights, shape=shape, vocab_size=VOCAB, kind="llama")
    assert named["lm_head.weight"].shape == (VOCAB, 32)
    fused = weights["decoder.layers.self_attention.linear_qkv.weight"][1]
    # Two groups of 4 heads of 8 rows: two query heads, a key head, a value head.
    assert torch.equal(named["model.layers.1.self_attn.k_proj.weight"], torch.cat([fused[16:24], fused[48:56]]))
    assert named["model.layers.0.self_attn.q_proj.bias"].abs().max() > 0


def test_a_tokenizer_that_transformers_would_change_is_refused(
    trained: dict[str, Path], tmp_path: Path, tokenizer: Path, exported: Exporter
) -> None:
    changed = tmp_path / "tokenizer"
    shutil.copytree(tokenizer, changed)
    settings = json.loads((changed / "tokenizer_config.json").read_text())
    (changed / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": "<new>"}))
    with pytest.raises(
        ExportError, match=r"^transformers must load the tokenizer that made the shards, but it loads another"
    ):
        exported(trained["plain"], tmp_path / "model", tokenizer=changed)
