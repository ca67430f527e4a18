"""Toy models of every type, both ways: transformers' logits are Megatron's, and the tensors come back bit for bit."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from parallelism import device

device.prepare()

from safetensors.torch import load, load_file, save, save_file  # noqa: E402 - prepared above
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from parallelism import export, hf, hf_config, importer, model  # noqa: E402
from parallelism.hf import ExpertLayout, Piece  # noqa: E402
from parallelism.hf_config import Kind  # noqa: E402
from parallelism.layout import Layout, Precision  # noqa: E402
from parallelism.presets import Experts, LatentAttention, ModelShape, preset  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # the engines call each other's deprecated parts

VOCAB, SEQ = 200, 24  # VOCAB is padded to 256.
DENSE = ModelShape(
    num_layers=2,
    hidden_size=32,
    ffn_hidden_size=48,
    num_attention_heads=4,
    num_query_groups=2,
    kv_channels=8,
    max_position_embeddings=64,
)
EXPERTS = Experts(
    num_moe_experts=6,
    moe_router_topk=2,
    moe_ffn_hidden_size=16,
    moe_shared_expert_intermediate_size=32,
    moe_router_topk_scaling_factor=2.5,
)
DEEPSEEK = replace(
    DENSE,
    num_layers=3,
    num_query_groups=4,
    layernorm_epsilon=1e-6,
    rotary_base=50_000,
    latent=LatentAttention(kv_lora_rank=16, qk_head_dim=8, qk_pos_emb_head_dim=4, v_head_dim=12),
    experts=EXPERTS,
)
MODELS: dict[str, tuple[Kind, ExpertLayout, ModelShape]] = {
    "llama, tied": ("llama", "per_expert", replace(DENSE, share_embeddings_and_output_weights=True)),
    "llama, bias": ("llama", "per_expert", replace(DENSE, add_qkv_bias=True)),
    "qwen2": ("qwen2", "per_expert", replace(DENSE, add_qkv_bias=True, rotary_base=1_000_000)),
    "deepseek_v3": ("deepseek_v3", "per_expert", DEEPSEEK),
    "deepseek_v3, fused": ("deepseek_v3", "fused", DEEPSEEK),
    "deepseek_v3, one expert a token": (
        "deepseek_v3",
        "fused",
        replace(DEEPSEEK, experts=replace(EXPERTS, moe_router_topk=1, first_k_dense=0)),
    ),
}


@pytest.fixture(scope="module")
def written(write_hf: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns the folder of a random model."""
    folders: dict[str, Path] = {}

    def write(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("hf")
            kind, experts, shape = MODELS[name]
            write_hf(folders[name], shape, kind=kind, experts=experts)
        return folders[name]

    return write


def _tokens() -> Tensor:
    return torch.randint(0, VOCAB, (2, SEQ), generator=torch.Generator().manual_seed(4))


@pytest.fixture
def read(in_child: Callable[..., Any]) -> Callable[..., tuple[Tensor, dict[str, Tensor]]]:
    """Returns a function that gives Megatron's logits of a folder, and the state that it read, as whole tensors."""

    def told(*arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
        whole = load(in_child(_read, *arguments))
        return whole.pop("logits"), whole

    return told


def _read(folder: Path, precision: Precision = "fp32") -> bytes:
    torch.set_num_threads(1)
    with export.alone(), torch.no_grad():
        source = importer.find(folder)
        shape, vocab = source.described.shape, source.described.vocab_size
        layout = Layout(world_size=1, global_batch_size=1, seq_length=SEQ)
        (chunk,) = model.build(shape, layout=layout, precision=precision, vocab_size=vocab, seq_length=SEQ, seed=9)
        importer.fill(chunk, source=source)
        rows = _tokens()
        logits = chunk.eval()(rows, torch.arange(SEQ).expand_as(rows), None)
        return save({"logits": logits.float().contiguous(), **_whole(chunk)})


def _whole(chunk: Any) -> dict[str, Tensor]:
    """Returns what a checkpoint of this model would hold, layers and experts stacked."""
    found: dict[str, dict[tuple[int, ...], list[tuple[int, Tensor]]]] = {}
    for name, _, offsets, local in model.parts(chunk):
        *prefix, key = name.split("/")
        place = tuple(map(int, prefix))
        found.setdefault(key, {}).setdefault(place, []).append((offsets[0], local.clone()))
    whole = {}
    for key, places in found.items():
        parts = [torch.cat([rows for _, rows in sorted(places[at], key=lambda part: part[0])]) for at in sorted(places)]
        whole[key] = parts[0] if () in places else torch.stack(parts)
    return whole


def _transformers(folder: Path) -> Tensor:
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logits: Tensor = loaded.eval()(_tokens()).logits
    return logits


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_read_gives_transformers_logits_and_its_own_tensors_again(
    name: str, written: Callable[[str], Path], read: Callable[..., Any]
) -> None:
    kind, experts, shape = MODELS[name]
    folder = written(name)
    assert replace(hf_config.read(folder).shape, kv_channels=8) == shape
    logits, whole = read(folder)
    expected = _transformers(folder)
    assert expected.std() > 0.5
    assert (logits[..., :VOCAB] - expected).abs().max() < 2e-5
    files = load_file(folder / "model.safetensors")
    again = hf.to_hf(whole, shape=shape, vocab_size=VOCAB, kind=kind, experts=experts)
    if shape.share_embeddings_and_output_weights:
        del again["lm_head.weight"]
    assert set(again) == set(files)
    assert all(torch.equal(again[name], files[name]) for name in files)


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("qwen2", ("1.self_attn.k_proj.weight", "1.self_attn.v_proj.weight")),
        ("qwen2", ("0.mlp.gate_proj.weight", "0.mlp.up_proj.weight")),
        ("deepseek_v3", ("1.mlp.experts.3.down_proj.weight", "1.mlp.experts.4.down_proj.weight")),
        ("deepseek_v3", ("1.mlp.gate.e_score_correction_bias", "2.mlp.gate.e_score_correction_bias")),
    ],
)
def test_swapped_weights_show_in_the_logits(
    name: str, pair: tuple[str, str], written: Callable[[str], Path], read: Callable[..., Any], tmp_path: Path
) -> None:
    folder = written(name)
    files = load_file(folder / "model.safetensors")
    first, second = (f"model.layers.{tensor}" for tensor in pair)
    save_file({**files, first: files[second].clone(), second: files[first].clone()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    logits, _ = read(tmp_path)
    assert (logits[..., :VOCAB] - _transformers(folder)).abs().max() > 1e-2


def test_half_precision_is_read_as_it_is(
    written: Callable[[str], Path], read: Callable[..., Any], tmp_path: Path
) -> None:
    """A router's bias is no weight of half precision, whatever the model's is."""
    folder = written("deepseek_v3")
    files = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(files, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    _, whole = read(tmp_path, "bf16")
    bias = whole["decoder.layers.1.mlp.router.expert_bias"]
    assert bias.dtype == torch.float32
    assert torch.equal(bias, files["model.layers.1.mlp.gate.e_score_correction_bias"].float())
    again = hf.to_hf(whole, shape=DEEPSEEK, vocab_size=VOCAB, kind="deepseek_v3", experts="per_expert")
    assert all(torch.equal(again[name].bfloat16(), files[name]) for name in files)


def test_the_rows_of_each_group_lie_side_by_side() -> None:
    found = hf.table(replace(DENSE, add_qkv_bias=True), vocab_size=VOCAB)[
        "1/decoder.layers.self_attention.linear_qkv.bias"
    ]
    hf_name = "model.layers.1.self_attn.{}_proj.bias".format
    assert found == (
        Piece(name=hf_name("q"), start=0, stop=16),
        Piece(name=hf_name("k"), start=0, stop=8),
        Piece(name=hf_name("v"), start=0, stop=8),
        Piece(name=hf_name("q"), start=16, stop=32),
        Piece(name=hf_name("k"), start=8, stop=16),
        Piece(name=hf_name("v"), start=8, stop=16),
    )


@pytest.mark.parametrize("name", ["smollm2_135m", "dense_32b", "gravity_16b_a3b"])
@pytest.mark.parametrize("experts", ["per_expert", "fused"])
def test_a_named_size_is_written_as_transformers_has_it(name: str, experts: ExpertLayout) -> None:
    """Every name and every row, on no memory at all."""
    shape, kind = preset(name), hf_config.usual_kind(preset(name))
    values = hf_config.to_config(shape, kind=kind, vocab_size=VOCAB, max_tokens=64, eod_id=1, pad_id=2)
    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(AutoConfig.for_model(**json.loads(json.dumps(values))))
    rows = hf.rows_of(hf.table(shape, vocab_size=VOCAB, experts=experts))
    theirs = {key: tensor.shape[int(".experts." in key)] for key, tensor in made.state_dict().items()}
    if shape.share_embeddings_and_output_weights:
        del theirs["lm_head.weight"]
    if shape.add_qkv_bias:
        theirs = {key: count for key, count in theirs.items() if not key.endswith("o_proj.bias")}
    if shape.experts and experts == "per_expert":
        assert len(rows) == len(theirs) + 27 * (3 * 64 - 2)
    else:
        assert rows == theirs
    assert made.num_parameters() - (64 * 5120 if name == "dense_32b" else 0) == shape.parameters(VOCAB)


@pytest.mark.skipif("MEDSCALE_HF_FOLDER" not in os.environ, reason="needs a real model: docs/hugging-face.md makes one")
def test_a_real_model_read_gives_transformers_logits_and_its_own_tensors_again(read: Callable[..., Any]) -> None:
    folder = Path(os.environ["MEDSCALE_HF_FOLDER"])
    found = hf_config.read(folder)
    logits, whole = read(folder)
    expected = _transformers(folder)
    logits = logits[..., : found.vocab_size]
    assert (logits - expected).abs().max() < 1e-3
    assert (logits.argmax(-1) == expected.argmax(-1)).all()
    files: dict[str, Tensor] = {}
    for name in hf_config.weight_files(folder):
        files |= load_file(folder / name)
    sizes: dict[str, Any] = {"shape": found.shape, "vocab_size": found.vocab_size, "kind": found.kind}
    again = hf.to_hf(whole, **sizes, experts=hf.experts_of(files))
    assert all(torch.equal(again[name].to(files[name].dtype), files[name]) for name in files)
