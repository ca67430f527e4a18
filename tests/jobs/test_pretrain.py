"""The pretrain stage on real shards: what it reports, how it goes on, and what planning refuses."""

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from jobs._journal import Journal, read_history
from jobs._run import ROOT
from jobs._stage import STOPPED, Context, Progress, Stage
from jobs.prepare import PrepareConfig
from jobs.prepare import run as prepare
from jobs.pretrain import PretrainConfig, run
from jobs.tokenize import TokenizeConfig
from jobs.tokenize import run as tokenize
from slurm.files import read_json, sha256_file
from slurm.site import Site

LAPTOP = Site.model_validate(yaml.safe_load((ROOT / "slurm/sites/laptop.yaml").read_text()))
SMALL: dict[str, Any] = {
    "model": "demo",
    "precision": "fp32",
    "seq_length": 32,
    "global_batch_size": 4,
    "micro_batch_size": 4,
    "train_iters": 4,
    "lr": 0.003,
    "eval_interval": 2,
    "eval_samples": 4,
    "save_interval": 2,
}


def config(**changes: Any) -> PretrainConfig:
    return PretrainConfig.model_validate({**SMALL, **changes})


def stage(root: Path, name: str) -> Stage:
    journal = Journal(root / name / "journal.jsonl")
    journal.start(experiment=f"medscale/{name}", name="test@laptop", identity="1", params={}, tags={})
    return Stage(
        name=name,
        run="test",
        site=LAPTOP,
        folder=root / name,
        root=root,
        parents={},
        sections={},
        journal=journal,
        progress=Progress(path=root / name / "progress.json"),
        seed=5,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose tokenize stage is done: proteins and paired text."""
    folder = tmp_path_factory.mktemp("run")
    proteins = "".join(f">p{number}\nMK{'ACDEFGHIKL'[number % 10] * (number % 7 + 1)}T\n" for number in range(60))
    (folder / "p.fasta").write_text(proteins)
    pairs = [{"en": f"Patient {number} has a fever.", "ko": f"환자 {number}번은 열이 있다."} for number in range(60)]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    sources = [
        {"name": "p", "modality": "protein", "path": str(folder / "p.fasta"), "license": "MIT"},
        {"name": "t", "modality": "text", "path": str(folder / "t.jsonl"), "license": "MIT"},
    ]
    prepare(PrepareConfig.model_validate({"sources": sources, "valid_fraction": 0.2}), stage(folder, "prepare"))
    tokenize(TokenizeConfig(vocab_size=704, shard_tokens=1 << 16), stage(folder, "tokenize"))
    return folder


def test_it_reports_losses_rates_and_a_checkpoint_and_goes_on(root: Path) -> None:
    first = run(config(), stage(root, "pretrain"))
    assert first.details["resumed_from"] == 0
    streams = first.details["streams"]
    assert set(streams) == {"protein", "text.en", "text.ko"}
    for name, row in streams.items():
        assert first.metrics[f"valid/loss/{name}"] == row["valid_loss"]
        assert first.metrics[f"valid/unigram_entropy/{name}"] == row["unigram_entropy"] > 0
    assert 0 < first.metrics["train/mfu"] < 2
    found = first.details["checkpoint"]
    (path,) = first.outputs
    assert path == f"{found['path']}/manifest.json"
    assert found["path"].endswith("step_00000004")
    assert first.outputs[path] == sha256_file(root / "pretrain" / path)
    manifest = read_json(root / "pretrain" / path)
    assert manifest["digest"] == found["digest"]
    assert set(manifest["code"]) == {"medscale", "torch", "megatron-core"}
    curves = read_history(root / "pretrain" / "journal.jsonl").curves
    assert list(curves["train/loss"]) == [1, 2, 3, 4]
    assert list(curves["valid/loss/text.ko"]) == [2, 4]
    assert curves["valid/loss"][4] == first.metrics["valid/loss"]
    again = run(config(train_iters=6, lr_decay_iters=4), stage(root, "pretrain"))
    assert again.details["resumed_from"] == 4
    assert read_json(root / "pretrain" / "progress.json")["done"] == 6


def test_a_checkpoint_of_another_step_is_set_aside_and_a_later_one_is_no_result(root: Path) -> None:
    done = run(config(), stage(root, "moved"))
    last = root / "moved" / done.details["checkpoint"]["path"]
    last.rename(last.with_name("step_00000003"))
    again = run(config(), stage(root, "moved"))
    assert again.details["resumed_from"] == 2
    assert "it is of another step or another training" in again.details["set_aside"][0]
    from parallelism.trainer import TrainingError

    with pytest.raises(TrainingError, match=r"train_iters must be at least 4, the step of .*, but is 3; raise it"):
        run(config(train_iters=3, lr_decay_iters=4), stage(root, "moved"))


def test_asked_to_stop_it_saves_and_exits_with_its_own_status(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = stage(root, "stopped")

    def ask() -> None:
        while "train/loss" not in given.journal.path.read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGUSR2)

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(SystemExit, match=str(STOPPED)):
        run(config(train_iters=100_000, eval_interval=100_000, save_interval=100_000), given)
    asking.join()
    assert "the same command goes on from" in capsys.readouterr().out
    (folder,) = (root / "stopped" / "checkpoints").iterdir()
    assert len(list(folder.iterdir())) == 1


def test_shards_that_changed_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must hold a committed manifest.json, but has none; run tokenize again"):
        run(config(), stage(tmp_path, "pretrain"))


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(ValidationError, match="model must be a named size, but 'demos' is not one; did you mean demo"):
        config(model="demos")


RAMPS = ("a ramp that does not arrive", "a ramp that does not fit")
PHASES = ("a phase after the end", "a phase without a mixture")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"min_lr": 0.1}, "min_lr: must be at most lr 0.003, but is 0.1; lower it"),
        (
            {"lr_warmup_iters": 4},
            "lr_warmup_iters: must be below lr_decay_iters (train_iters unless given) 4, but is 4; lower it",
        ),
        (
            {"lr_decay_style": "WSD"},
            "lr_wsd_decay_iters: must be given with lr_decay_style WSD, and only then; add it or remove it",
        ),
        (
            {"lr_wsd_decay_iters": 2},
            "lr_wsd_decay_iters: must be given with lr_decay_style WSD, and only then; add it or remove it",
        ),
        (
            {"lr_decay_style": "WSD", "lr_wsd_decay_iters": 4, "lr_warmup_iters": 1},
            "lr_wsd_decay_iters: must be at most 3, the steps after warm-up, but is 4; lower it",
        ),
        (
            {"pipeline_model_parallel_size": 3, "resources": {"tasks_per_node": 3}},
            "pipeline_model_parallel_size 3 must divide num_layers 4; use 1, 2 or 4",
        ),
        (
            {"rampup_batch_size": {"start": 4, "increment": 2, "samples": 8}},
            (
                "rampup_batch_size: must rise from below global_batch_size 4 to it in whole increments, but 4 plus "
                "steps of 2 does not; change start or increment"
            ),
        ),
        (
            {"rampup_batch_size": {"start": 2, "increment": 2, "samples": 8}},
            (
                "rampup_batch_size: must only have sizes that fit the layout, but its global_batch_size 2 must be a "
                "multiple of micro_batch_size 4 x data_parallel_size 1 = 4; use 4"
            ),
        ),
        (
            {"profile_steps": [3, 2]},
            "profile_steps: must be a first step and a last, not before it, but is 3 and 2; swap them",
        ),
        (
            {"phases": [{"start_iter": 5, "mixture": {"protein": 1.0}}]},
            (
                "phases.0.start_iter: must be above 1, where the phase before it starts, and at most lr_decay_iters "
                "(train_iters unless given) 4, but is 5; change it"
            ),
        ),
        (
            {"phases": [{"start_iter": 2, "mixture": {"protein": 0.5}}]},
            (
                "phases.0.mixture: a mixture must be positive weights that sum to 1, but is {'protein': 0.5}; "
                "correct the weights"
            ),
        ),
    ],
    ids=["min_lr", "warm-up", "WSD without", "WSD only", "WSD too long", "layout", *RAMPS, "profile", *PHASES],
)
def test_planning_refuses_what_cannot_be(changes: dict[str, Any], line: str) -> None:
    section = config(**changes)
    context = Context(sections={"pretrain": section}, root=ROOT)
    assert list(section.problems(context)) == [line]


def test_a_phase_mixes_what_tokenize_mixes() -> None:
    phases = [{"start_iter": 2, "mixture": {"text.ko": 0.5, "omics": 0.5}}, {"start_iter": 3, "mixture": {"omics": 1}}]
    section = config(phases=phases)
    sections = {"tokenize": TokenizeConfig(vocab_size=704, mixture={"text.ko": 1.0, "protein": 1.0})}
    (first, _) = section.problems(Context(sections=sections, root=ROOT))
    assert first == (
        "phases.0.mixture.omics: must be a stream that tokenize mixes, text.ko, protein, but is not; correct the "
        "name, or add it there"
    )
    assert list(section.problems(Context(sections={}, root=ROOT))) == []


def test_a_course_of_everything(root: Path) -> None:
    """A batch that grows, a second mixture, statistics, a profile and deterministic kernels, from the run file."""
    torch = pytest.importorskip("torch")
    changes = {
        "micro_batch_size": 1,
        "rampup_batch_size": {"start": 2, "increment": 2, "samples": 4},
        "phases": [{"start_iter": 4, "mixture": {"protein": 1.0}}],
        "on_spike": "skip",
        "stats_interval": 2,
        "profile_steps": [2, 2],
        "deterministic": True,
    }
    try:
        done = run(config(**changes), stage(root, "course"))
    finally:
        torch.use_deterministic_algorithms(False)
    manifest = read_json(root / "course" / done.details["checkpoint"]["path"] / "manifest.json")
    assert manifest["deterministic"]["NCCL_ALGO"] == "Ring"
    assert manifest["kernels"] == done.details["kernels"]
    assert manifest["recipe"]["phases"] == [[4, {"protein": 1.0}]]
    assert (done.details["skipped"], done.details["rewinds"]) == ([], [])
    curves = read_history(root / "course" / "journal.jsonl").curves
    assert set(curves["train/loss/text.ko"]) <= {1, 2, 3}
    assert 4 in curves["train/loss/protein"]
    assert list(curves["grad_norm/layer_004"]) == [2, 4]
    assert (root / "course" / "profile" / "steps_2_2.txt").is_file()


def test_a_good_section_has_no_problems() -> None:
    section = config(tensor_model_parallel_size=2, resources={"tasks_per_node": 4}, micro_batch_size=1)
    assert list(section.problems(Context(sections={}, root=ROOT))) == []
    assert section.layout.data_parallel_size == 2


def test_pairs_are_packed_and_their_meetings_counted(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "prepare", tmp_path / "prepare")
    tokenize(TokenizeConfig(vocab_size=704, shard_tokens=1 << 16, pairs=1.0), stage(tmp_path, "tokenize"))
    outcome = run(config(attention_mask="xlda", train_iters=2), stage(tmp_path, "pretrain"))
    assert set(outcome.details["streams"]) == {"protein", "text.en+ko"}
    assert 0 < outcome.metrics["packing/ko_after_en"] < 1
    assert 0 < outcome.metrics["packing/bilingual"] < 1  # sequences of proteins are not


def test_xlda_needs_pairs() -> None:
    sections = {"tokenize": TokenizeConfig(vocab_size=704)}
    (found,) = config(attention_mask="xlda").problems(Context(sections=sections, root=ROOT))
    assert found.startswith("attention_mask: must be causal or document where tokenize.pairs is 0, but is xlda; raise")
