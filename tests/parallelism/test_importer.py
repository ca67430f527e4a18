"""Training from a Hugging Face folder: the same losses under every layout, and every folder that may not be used."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from parallelism import device

device.prepare()

from safetensors.torch import load_file, save_file  # noqa: E402 - prepared above
from tokenizers import Tokenizer  # noqa: E402
from tokenizers.models import WordLevel  # noqa: E402

from parallelism import export, importer, model  # noqa: E402
from parallelism.hf_config import HFError  # noqa: E402
from parallelism.layout import Layout  # noqa: E402
from parallelism.presets import Experts, LatentAttention, ModelShape  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # the engines call each other's deprecated parts

Start = Callable[..., Any]
VOCAB = 200
TP2 = {"tensor_model_parallel_size": 2}
PP2 = {"pipeline_model_parallel_size": 2}
SPREAD: dict[str, tuple[int, dict[str, Any]]] = {
    "llama": (4, {**TP2, **PP2}),
    "deepseek_v3": (4, {**TP2, "sequence_parallel": True, **PP2, "expert_model_parallel_size": 2}),
}


@pytest.fixture(scope="module")
def shapes(small_shape: ModelShape) -> dict[str, ModelShape]:
    latent = LatentAttention(kv_lora_rank=16, qk_head_dim=8, qk_pos_emb_head_dim=4, v_head_dim=8)
    experts = Experts(
        num_moe_experts=4, moe_router_topk=2, moe_ffn_hidden_size=32, moe_shared_expert_intermediate_size=32
    )
    mixed = replace(small_shape, num_query_groups=4, layernorm_epsilon=1e-6, latent=latent, experts=experts)
    return {"llama": replace(small_shape, share_embeddings_and_output_weights=True), "deepseek_v3": mixed}


@pytest.fixture(scope="module")
def folders(
    shapes: dict[str, ModelShape], write_hf: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A random model of each type; the llama in two files."""
    found = {kind: tmp_path_factory.mktemp(kind) for kind in shapes}
    for kind, folder in found.items():
        write_hf(folder, shapes[kind], kind=kind)
    _split(found["llama"])
    return found


def _split(folder: Path) -> None:
    """Puts the weights into two files and an index, as big models have them."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = {name: f"part-{number % 2}.safetensors" for number, name in enumerate(sorted(weights))}
    for file in set(names.values()):
        save_file({name: tensor for name, tensor in weights.items() if names[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


@pytest.mark.parametrize("kind", ["llama", "deepseek_v3"])
def test_training_goes_on_from_a_folder_under_every_layout(
    kind: str, start_training: Start, shapes: dict[str, ModelShape], folders: dict[str, Path], tmp_path: Path
) -> None:
    world_size, sizes = SPREAD[kind]
    settings: dict[str, Any] = {"shape": shapes[kind], "train_iters": 4}
    alone = start_training(tmp_path / "alone", start_from=folders[kind], **settings)
    spread = start_training(tmp_path / "spread", start_from=folders[kind], world_size=world_size, **sizes, **settings)
    drawn = start_training(tmp_path / "drawn", **{**settings, "train_iters": 1})
    for attempt in (alone, spread, drawn):
        attempt.wait()
    assert f"starting from {folders[kind]}" in spread.notes()
    losses = alone.values()
    assert list(losses) == [1, 2, 3, 4]
    assert max(abs(spread.values()[step] - losses[step]) for step in losses) < 1e-5
    assert abs(drawn.values()[1] - losses[1]) > 0.1


def test_a_checkpoint_is_continued_and_not_the_folder(
    start_training: Start, shapes: dict[str, ModelShape], folders: dict[str, Path], tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"shape": shapes["llama"], "start_from": folders["llama"]}
    whole = start_training(tmp_path / "whole", **settings)
    whole.wait()
    start_training(tmp_path / "cut", train_iters=4, **settings).wait()
    again = start_training(tmp_path / "cut", **settings)
    assert again.wait().resumed_from == 4
    assert "starting from" not in again.notes()
    assert again.values() == {step: loss for step, loss in whole.values().items() if step > 4}
    assert len(list((tmp_path / "cut" / "checkpoints").iterdir())) == 1


def test_half_precision_learns_from_the_folders_weights_too(
    start_training: Start, shapes: dict[str, ModelShape], folders: dict[str, Path], tmp_path: Path
) -> None:
    """The optimizer's own copy of the weights is the folder's: after a step the loss is not that of drawn weights."""
    settings: dict[str, Any] = {"shape": shapes["llama"], "train_iters": 3, "start_from": folders["llama"]}
    whole = start_training(tmp_path / "whole", **settings)
    half = start_training(tmp_path / "half", world_size=2, precision="bf16", **settings)
    whole.wait()
    half.wait()
    assert all(loss == pytest.approx(whole.values()[step], rel=5e-3) for step, loss in half.values().items())


def _filled(folder: Path, vocab_size: int) -> tuple[list[list[float]], list[list[float]]]:
    """Returns the embedding before and after the weights of a folder are read into it."""
    with export.alone():
        source = importer.find(folder)
        layout = Layout(world_size=1, global_batch_size=1, seq_length=8)
        shape = source.described.shape
        importer.require(source, shape=shape, vocab_size=vocab_size)
        (chunk,) = model.build(shape, layout=layout, precision="fp32", vocab_size=vocab_size, seq_length=8, seed=1)
        table = next(chunk.parameters())
        before = table.detach().clone()
        importer.fill(chunk, source=source)
        return before.tolist(), table.tolist()


def test_a_vocabulary_may_grow(folders: dict[str, Path], in_child: Callable[..., Any]) -> None:
    before, after = in_child(_filled, folders["llama"], 300)
    assert len(before) == len(after) == 384
    assert before[VOCAB:] == after[VOCAB:]
    weights = load_file(folders["llama"] / "part-0.safetensors")
    assert after[:VOCAB] == weights["model.embed_tokens.weight"].tolist()


def test_what_is_read_is_known_by_its_bytes(folders: dict[str, Path], tmp_path: Path) -> None:
    source = importer.find(folders["llama"])
    assert set(source.files) == {"config.json", "part-0.safetensors", "part-1.safetensors"}
    for name in (*source.files, "model.safetensors.index.json"):
        (tmp_path / name).write_bytes((folders["llama"] / name).read_bytes())
    (tmp_path / "README.md").touch()
    assert importer.find(tmp_path).digest == source.digest
    weights = load_file(tmp_path / "part-1.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, tmp_path / "part-1.safetensors")
    assert importer.find(tmp_path).digest != source.digest
    importer.require_same(source, digest=source.digest)
    importer.require_same(None, digest="")
    with pytest.raises(HFError, match=r"must come from the folder of digest [0-9a-f]{12}, which .* none; make the rec"):
        importer.require_same(None, digest=source.digest)


def test_another_model_is_refused(folders: dict[str, Path], shapes: dict[str, ModelShape]) -> None:
    source = importer.find(folders["llama"])
    must = (
        r"^\S+: must be the model that is trained, but num_layers must be 3, but is 4; rotary_base must be 500000, "
        r"but is 10000; vocab_size must be at most the tokenizer's 100, but is 200$"
    )
    with pytest.raises(HFError, match=must):
        importer.require(source, shape=replace(shapes["llama"], num_layers=3, rotary_base=500_000), vocab_size=100)


def test_tokens_keep_their_ids(folders: dict[str, Path], tmp_path: Path) -> None:
    source = replace(importer.find(folders["llama"]), folder=tmp_path)
    words = {f"w{number}": number for number in range(5)}
    (tmp_path / "shards").mkdir()
    shards = tmp_path / "shards" / "tokenizer.json"
    Tokenizer(WordLevel({**words, "more": 5}, unk_token="w0")).save(str(shards))
    importer.require_tokens(source, tokenizer=shards)  # no tokenizer lies in the folder
    Tokenizer(WordLevel(words, unk_token="w0")).save(str(tmp_path / "tokenizer.json"))
    importer.require_tokens(source, tokenizer=shards)
    Tokenizer(WordLevel({**words, "w3": 9, "w4": 8}, unk_token="w0")).save(str(shards))
    with pytest.raises(HFError, match=r"keep its id in training, but 2 of 5 do not, as 'w3', 3 there and 9 in the sha"):
        importer.require_tokens(source, tokenizer=shards)


def _drop(weights: dict[str, Tensor]) -> None:
    del weights["model.layers.2.mlp.up_proj.weight"]


def _add(weights: dict[str, Tensor]) -> None:
    weights["model.layers.0.self_attn.q_norm.weight"] = torch.ones(8)


def _shorten(weights: dict[str, Tensor]) -> None:
    weights["model.embed_tokens.weight"] = torch.ones(190, 32)


def _narrow(weights: dict[str, Tensor]) -> None:
    weights["model.layers.2.mlp.up_proj.weight"] = torch.ones(64, 31)


def _bias(weights: dict[str, Tensor]) -> None:
    weights["model.layers.1.self_attn.o_proj.bias"] = torch.ones(32)


def _harmless(weights: dict[str, Tensor]) -> None:
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    weights["model.layers.4.eh_proj.weight"] = torch.ones(4)
    weights["model.layers.1.self_attn.o_proj.bias"] = torch.zeros(32)
    weights["lm_head.weight"] = torch.ones(VOCAB, 32)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (_drop, r"must hold the tensors of its config.json, but model.layers.2.mlp.up_proj.weight is missing; fetch"),
        (_add, r"but model.layers.0.self_attn.q_norm.weight is unknown; fetch it again"),
        (_shorten, r"but model.embed_tokens.weight has the shape \[190, 32\], not 200 rows; fetch it again"),
        (_narrow, r"model.layers.2.mlp.up_proj.weight must have 32 columns, but has the shape \[64, 31\]; fetch the"),
        (_bias, r"but model.layers.1.self_attn.o_proj.bias must be 0, as this decoder has no such bias, but is not"),
        (_harmless, None),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    change: Callable[[dict[str, Tensor]], None],
    line: str | None,
    folders: dict[str, Path],
    in_child: Callable[..., Any],
    tmp_path: Path,
) -> None:
    parts = [load_file(folders["llama"] / f"part-{number}.safetensors") for number in range(2)]
    weights = {**parts[0], **parts[1]}
    change(weights)
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folders["llama"] / "config.json").read_text())
    if line is None:
        in_child(_filled, tmp_path, VOCAB)
        return
    with pytest.raises(HFError, match=line):
        in_child(_filled, tmp_path, VOCAB)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_file_that_is_not_whole_is_told(
    share: float, folders: dict[str, Path], in_child: Callable[..., Any], tmp_path: Path
) -> None:
    for path in folders["llama"].iterdir():
        if path.suffix in (".json", ".safetensors"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    cut = tmp_path / "part-1.safetensors"
    cut.write_bytes(cut.read_bytes()[: int(share * cut.stat().st_size)])
    with pytest.raises(HFError, match=r"part-1.safetensors: must be whole safetensors, but is not .*; fetch it again"):
        in_child(_filled, tmp_path, VOCAB)
