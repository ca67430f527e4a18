"""The export stage, after real prepare, tokenize and pretrain stages."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs._journal import Journal
from jobs._stage import Context, Outcome, Progress, Stage, StageConfig
from jobs.export import ExportConfig
from jobs.export import run as export
from jobs.prepare import PrepareConfig
from jobs.prepare import run as prepare
from jobs.pretrain import PretrainConfig
from jobs.pretrain import run as pretrain
from jobs.tokenize import TokenizeConfig
from jobs.tokenize import run as tokenize
from slurm.files import sha256_files
from slurm.site import Site

SITE = Site(description="a test", executor="local", nodes=1, tasks_per_node=1, mem_gb=4, timeout_min=5)
PRETRAIN = PretrainConfig(
    model="demo", precision="fp32", seq_length=32, global_batch_size=4, train_iters=2, lr=0.003, eval_samples=4
)


def stage(root: Path, name: str, *, parents: Mapping[str, Any] | None = None) -> Stage:
    journal = Journal(root / name / "journal.jsonl")
    journal.start(experiment=f"medscale/{name}", name="test@laptop", identity="1", params={}, tags={})
    sections: dict[str, StageConfig] = {"pretrain": PRETRAIN}
    return Stage(
        name=name,
        run="test",
        site=SITE,
        folder=root / name,
        root=root,
        parents=parents or {},
        sections=sections,
        journal=journal,
        progress=Progress(path=root / name / "progress.json"),
        seed=5,
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, in_child: Callable[..., Any]) -> tuple[Path, Outcome, Outcome]:
    """A run's folder after its export, with the outcomes of pretrain and export."""
    root = tmp_path_factory.mktemp("run")
    (root / "p.fasta").write_text("".join(f">p{n}\nMK{'ACDEFGHIKL'[n % 10] * (n % 7 + 1)}T\n" for n in range(60)))
    pairs = [{"en": f"Patient {n} has a fever.", "ko": f"환자 {n}번은 열이 있다."} for n in range(60)]
    (root / "t.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    sources = [
        {"name": "p", "modality": "protein", "path": str(root / "p.fasta"), "license": "MIT"},
        {"name": "t", "modality": "text", "path": str(root / "t.jsonl"), "license": "MIT"},
    ]
    prepare(PrepareConfig.model_validate({"sources": sources, "valid_fraction": 0.2}), stage(root, "prepare"))
    tokenize(TokenizeConfig(vocab_size=704, shard_tokens=1 << 16), stage(root, "tokenize"))
    trained = in_child(pretrain, PRETRAIN, stage(root, "pretrain"))
    record = {"details": json.loads(json.dumps(trained.details))}
    given = stage(root, "export", parents={"pretrain": record})
    return root, trained, in_child(export, ExportConfig(samples=3, sample_tokens=64), given)


def test_every_stream_is_compared_and_every_file_is_listed(exported: tuple[Path, Outcome, Outcome]) -> None:
    root, trained, outcome = exported
    assert outcome.metrics["max_logit_difference"] < 1e-5
    assert outcome.metrics["same_argmax"] == 1
    assert outcome.metrics["parameters"] == 786_432 + 2 * 704 * 128 + 9 * 128
    assert outcome.details["kind"] == "llama"
    assert outcome.details["checkpoint"] == {"step": 2, "digest": trained.details["checkpoint"]["digest"]}
    streams = outcome.details["streams"]
    assert set(streams) == {"protein", "text.en", "text.ko"}
    assert all(0 < row["tokens"] <= 3 * 32 for row in streams.values())
    files = sha256_files(root / "export" / "model")
    assert outcome.outputs == {f"model/{name}": digest for name, digest in files.items()}


def test_transformers_speaks_with_the_exported_model(exported: tuple[Path, Outcome, Outcome]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = exported[0] / "export" / "model"
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer("Patient 7 has", return_tensors="pt").input_ids
    said = model.generate(ids, max_new_tokens=4, do_sample=False)
    assert len(tokenizer) == model.config.vocab_size == 704
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.decode(said[0]).startswith("Patient 7 has")


def test_planning_refuses_a_form_that_the_model_has_not() -> None:
    context = Context(sections={"pretrain": PRETRAIN}, root=Path())
    assert [*ExportConfig().problems(context)] == []
    (found,) = ExportConfig(kind="qwen2").problems(context)
    assert found == "kind: qwen2 must have a bias on queries, keys and values, but this model has none; write llama"
