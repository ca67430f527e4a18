"""Training from a Hugging Face folder as a stage: what planning refuses, and that the stage reads it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs._journal import Journal
from jobs._run import ROOT
from jobs._stage import Context, Outcome, Progress, Stage
from jobs.prepare import PrepareConfig
from jobs.prepare import run as prepare
from jobs.pretrain import PretrainConfig, run
from jobs.tokenize import TokenizeConfig
from jobs.tokenize import run as tokenize
from parallelism import hf_config
from parallelism.presets import preset
from slurm.site import Site

SMALL: dict[str, Any] = {"model": "demo", "precision": "fp32", "seq_length": 32, "global_batch_size": 4}
SMALL |= {"micro_batch_size": 4, "train_iters": 1, "lr": 0.003, "eval_samples": 4}


def stage(root: Path, name: str) -> Stage:
    journal = Journal(root / name / "journal.jsonl")
    journal.start(experiment=f"medscale/{name}", name="test@laptop", identity="1", params={}, tags={})
    return Stage(
        name=name,
        run="test",
        site=Site.model_validate(yaml.safe_load((ROOT / "slurm/sites/laptop.yaml").read_text())),
        folder=root / name,
        root=root,
        parents={},
        sections={},
        journal=journal,
        progress=Progress(path=root / name / "progress.json"),
        seed=5,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What planning reads of a model of the demo's size with 640 tokens."""
    found = tmp_path / "model"
    found.mkdir()
    config = hf_config.to_config(preset("demo"), kind="llama", vocab_size=640, max_tokens=64, eod_id=None, pad_id=None)
    (found / "config.json").write_text(json.dumps(config))
    (found / "model.safetensors").touch()
    return found


def problems(folder: Path, *, tokenizer: str | None = "somewhere", **changes: Any) -> list[str]:
    section = PretrainConfig.model_validate({**SMALL, "start_from": folder.name, **changes})
    sections = {"tokenize": TokenizeConfig(vocab_size=704, tokenizer=tokenizer)}
    return [*section.problems(Context(sections=sections, root=folder.parent))]


def test_planning_looks_into_the_folder(folder: Path) -> None:
    assert problems(folder) == []
    (line,) = problems(folder, model="demo_moe")
    assert line.startswith(
        f"start_from: {folder} must be the model that is trained, but layernorm_epsilon must be 1e-06"
    )
    assert line.endswith("; change either")
    (line,) = problems(folder, tokenizer=None)
    assert line == (
        "start_from: must be trained on with its own tokenizer, but tokenize makes a new one; set tokenize.tokenizer "
        f"to {folder}"
    )
    (folder / "model.safetensors").unlink()
    (line,) = problems(folder)
    assert line.startswith(
        f"start_from: {folder}: must hold its weights as model.safetensors, but holds nothing else; "
    )
    shutil.rmtree(folder)
    (line,) = problems(folder)
    assert line.startswith(f"start_from: {folder}/config.json: must be a Hugging Face model's config, but is not there")


def test_another_folder_is_another_result(folder: Path) -> None:
    section = PretrainConfig.model_validate({**SMALL, "start_from": folder.name})
    assert [*section.files(folder.parent)] == [folder / "config.json", folder / "model.safetensors"]
    assert [*section.files(folder)] == []
    assert [*PretrainConfig.model_validate(SMALL).files(folder)] == []


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose tokenize stage is done."""
    made = tmp_path_factory.mktemp("run")
    (made / "p.fasta").write_text("".join(f">p{n}\nMK{'ACDEFGHIKL'[n % 10] * (n % 7 + 1)}T\n" for n in range(60)))
    sources = [{"name": "p", "modality": "protein", "path": str(made / "p.fasta"), "license": "MIT"}]
    prepare(PrepareConfig.model_validate({"sources": sources, "valid_fraction": 0.2}), stage(made, "prepare"))
    tokenize(TokenizeConfig(vocab_size=704, shard_tokens=1 << 16), stage(made, "tokenize"))
    return made


def _write(folder: Path) -> None:
    from parallelism import device

    device.prepare()
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = hf_config.to_config(preset("demo"), kind="llama", vocab_size=640, max_tokens=64, eod_id=None, pad_id=None)
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).save_pretrained(folder)


def _run(config: PretrainConfig, given: Stage, folder: Path) -> tuple[Outcome, str]:
    """Returns what the stage does, and what it says when the folder's tokens have other ids."""
    _write(folder)
    tokenizer = given.root / "tokenize" / "tokenizer" / "tokenizer.json"
    shutil.copy(tokenizer, folder)
    outcome = run(config, given)
    tokens = json.loads(tokenizer.read_text())
    tokens["model"]["vocab"] = {token: 703 - number for token, number in tokens["model"]["vocab"].items()}
    (folder / "tokenizer.json").write_text(json.dumps(tokens))
    with pytest.raises(hf_config.HFError) as refused:  # noqa: PT011 - compared by the parent
        run(config, given)
    return outcome, str(refused.value)


def test_the_stage_starts_from_the_folder(root: Path, tmp_path: Path, in_child: Callable[..., Any]) -> None:
    config = PretrainConfig.model_validate({**SMALL, "start_from": str(tmp_path / "model")})
    given = stage(root, "pretrain")
    outcome, refused = in_child(_run, config, given, tmp_path / "model")
    manifest = json.loads((given.folder / next(iter(outcome.outputs))).read_text())
    source = manifest["start_from"]
    assert source["folder"] == str(tmp_path / "model")
    assert set(source["files"]) == {"config.json", "model.safetensors"}
    assert manifest["recipe"]["start_from_digest"]
    assert outcome.inputs == {f"{source['folder']}/{name}": digest for name, digest in source["files"].items()}
    assert "every token must keep its id in training, but" in refused
