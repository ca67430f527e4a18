"""The report stage: from the records and journals of a run to its page."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs._findings import follow, gather
from jobs._journal import Journal
from jobs._stage import Progress, Stage, StageConfig
from jobs.report import ReportConfig, run
from slurm.files import digest, sha256_file, write_json
from slurm.site import Site

STAGES = ("prepare", "tokenize", "plan", "pretrain", "export", "evaluate")
ENTROPY = {"omics": 4.9, "molecule": 2.7, "protein": 2.9, "text.en": 6.1, "text.ko": 5.8, "trial": 4.2}
STEPS = 200

Values = dict[str, Any]


def _loss(stream: str, step: int) -> float:
    """A loss that falls from ln 2816 to somewhat below the stream's entropy."""
    last = ENTROPY[stream] * 0.72
    return last + (math.log(2816) - last) * math.exp(-step / 45)


def _estimate(value: float, half: float, n: int = 300) -> Values:
    return {"value": value, "low": value - half, "high": value + half, "n": n}


def _record(stage: str, **parts: Any) -> Values:
    index = STAGES.index(stage)
    return {
        "stage": stage,
        "request": digest(["request", stage]),
        "inputs": {},
        "outputs": {f"{stage}.json": digest(stage)},
        "digest": digest(["record", stage]),
        "run": "demo",
        "site": "laptop",
        "seed": 1234,
        "config": {},
        "parents": {name: digest(["record", name]) for name in STAGES[max(0, index - 1) : index]},
        "metrics": {},
        "details": {},
        "started": 1_763_715_000.0 + 60 * index,
        "finished": 1_763_715_000.0 + 60 * index + 7.5,
        "resources": {"nodes": 1, "tasks_per_node": 1, "gpus_per_node": 0, "cpus_per_task": 1},
        "tracking_id": digest(["tracked", stage])[:32],
        "workflow_id": "0123456789abcdef",
        "code": {"version": "0.1.0", "commit": "c8c59c0" + 33 * "a", "lock": digest("lock"), "python": "3.12.1"},
        "host": {"name": "node-1", "machine": "x86_64", "cpus": 2},
    } | parts


def _prepare() -> Values:
    counts = {
        f"records/{name}/{split}": 900.0 if split == "train" else 100.0
        for name in ENTROPY
        for split in ("train", "valid")
    }
    plain = {"duplicates": 0, "rejects": {}, "notes": [], "sha256": digest("s"), "path": "a.csv", "commercial": True}
    sources = [
        {**plain, "name": "solubility", "modality": "molecule", "license": "Apache-2.0", "records": 1000,
         "duplicates": 12, "rejects": {"not_parsable": 3, "too_long": 1}},
        {**plain, "name": "pbmc", "modality": "omics", "license": "CC-BY-4.0", "records": 1000},
        {**plain, "name": "antimicrobial", "modality": "protein", "license": "CC-BY-NC-4.0", "commercial": False,
         "records": 1000, "notes": ["column 0 has no header"]},
        {**plain, "name": "actg175", "modality": "trial", "license": "MIT", "records": 1000},
        {**plain, "name": "care", "modality": "text", "license": "Apache-2.0", "records": 2000},
    ]  # fmt: skip
    return _record("prepare", metrics=counts, details={"sources": sources}, inputs={"data/a.csv": digest("s")})


def _tokenize() -> Values:
    weights = [0.14, 0.21, 0.2, 0.18, 0.15, 0.12]
    rows = {
        name: {
            "train_tokens": 61_234 * (number + 1),
            "valid_tokens": 6_012,
            "mixture": weight,
            "unigram_entropy": ENTROPY[name],
        }
        for number, (name, weight) in enumerate(zip(ENTROPY, weights, strict=True))
    }
    return _record("tokenize", details={"streams": rows, "tokenizer_digest": digest("tokenizer")})


def _plan() -> Values:
    memory = {
        "parameters_gib": 0.002,
        "gradients_gib": 0.002,
        "optimizer_gib": 0.004,
        "activations_gib": 0.061,
        "buffers_gib": 0.0,
    }
    details = {
        "layout": {"world_size": 4, "global_batch_size": 32, "seq_length": 256, "micro_batch_size": 8,
                   "tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2,
                   "virtual_pipeline_model_parallel_size": None, "name": "TP2 PP2 DP1 MBS8"},
        "computed": {"data_parallel_size": 1, "num_microbatches": 4, "bubble_fraction": 0.2},
        "fits": True, "mfu": None, "time_s": "measured at run time",
        "passes": [[1e9, 2e9], [1e9, 2e9]], "flops_per_step": 1.1e11,
        "chosen": None, "tried": 60, "fitting": 2, "front": [], "cloud": [], "campaign": {}, "kernels": [],
        "memory_gib": 4.657, "reserve_gib": 1.0,
        "stages": [{"stage": number, **memory} for number in range(2)],
        "assumptions": ["FLOPs: matmuls only.", "Speed: measured at run time."],
        "warnings": ["num_microbatches 1 is below pipeline_model_parallel_size 2"],
        "alternatives": [
            {"layout": "TP1 PP1 DP4 MBS8", "peak_gib": 0.12, "bubble_fraction": 0.0, "slower_than_best": 1.0,
             "step_time_s": None},
            {"layout": "TP2 PP2 DP1 MBS8", "peak_gib": 0.07, "bubble_fraction": 0.2, "slower_than_best": 1.31,
             "step_time_s": None},
        ],
        "refused": [{"reason": "tensor_model_parallel_size 4 must divide num_query_groups 2; use 1 or 2", "count": 12,
                     "example": "TP4 PP1 DP1 MBS1"}],
    }  # fmt: skip
    return _record(
        "plan", details=details, metrics={"parameters": 1_552_512.0, "flops_per_step": 1.1e11, "bubble_fraction": 0.2}
    )


def _pretrain() -> Values:
    rows = {
        name: {"valid_loss": _loss(name, STEPS), "unigram_entropy": ENTROPY[name], "valid_tokens": 6_012}
        for name in ENTROPY
    }
    config = {"train_iters": STEPS, "global_batch_size": 32, "seq_length": 256, "eval_samples": 16,
              "tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2}  # fmt: skip
    metrics = {
        "train/tokens_per_s": 9_876.0,
        "train/tflops_per_s": 0.132,
        "train/mfu": 0.31,
        "train/peak_tflops": 0.426,
    }
    checkpoint = {"path": "checkpoints/abc/step_00000200", "step": STEPS, "digest": digest("checkpoint")}
    return _record(
        "pretrain",
        config=config,
        metrics={**metrics, "valid/loss": 3.1},
        details={"streams": rows, "checkpoint": checkpoint, "resumed_from": 0, "set_aside": []},
        resources={"nodes": 1, "tasks_per_node": 4, "gpus_per_node": 0, "cpus_per_task": 1},
    )


def _export() -> Values:
    streams = {name: {"tokens": 512} for name in ENTROPY}
    return _record(
        "export",
        config={"max_logit_difference": 1e-3},
        metrics={"parameters": 1_552_512.0, "max_logit_difference": 4.1e-6, "same_argmax": 1.0},
        details={
            "checkpoint": {"step": STEPS, "digest": digest("c")},
            "streams": streams,
        },
    )


def _evaluate() -> Values:
    sample = {
        "prompt": "<molecule> CC(=O)Oc1ccccc1C(=O)O </molecule> solubility:",
        "choices": ["low", "medium", "high"],
        "answer": 1,
        "chosen": 2,
        "probabilities": [0.2, 0.35, 0.45],
    }
    common = {"metric": "accuracy by log-probability", "groups": 290, "chance": 0.33, "truncated": 0}
    rows = {
        "molecule_solubility": {
            **common, "question": "How soluble is the molecule?", "modality": "molecule", "n": 300,
            "accuracy": _estimate(0.58, 0.055), "baseline": {"name": "the most common class", **_estimate(0.46, 0.057)},
            "difference": _estimate(0.12, 0.06), "verdict": "better", "samples": [sample],
            "streams": {"molecule": _estimate(0.58, 0.055)},
        },
        "bilingual_pair": {
            **common, "question": "Which Korean sentence says the same?", "modality": "text", "n": 60,
            "accuracy": _estimate(0.3, 0.12, 60), "baseline": {"name": "a blind draw", **_estimate(0.25, 0.0, 60)},
            "difference": _estimate(0.05, 0.12, 60), "verdict": "tie",
            "samples": [{**sample, "prompt": "A fever is a body temperature above 38 °C.\n한국어:",
                         "choices": ["열은 체온이 38도를 넘는 것이다.", "심장은 피를 보낸다."],
                         "answer": 0, "chosen": 0, "probabilities": [0.7, 0.3]}],
            "streams": {"text.en": _estimate(0.33, 0.17, 30), "text.ko": _estimate(0.27, 0.16, 30)},
        },
    }  # fmt: skip
    return _record("evaluate", details={"benchmarks": rows})


def _records() -> dict[str, Values]:
    return {
        record["stage"]: record for record in (_prepare(), _tokenize(), _plan(), _pretrain(), _export(), _evaluate())
    }


def _write_journal(path: Path, *, tracking_id: str, steps: range) -> None:
    """Appends an execution of pretrain as its stage writes it."""
    journal = Journal(path)
    journal._append("start", tracking_id=tracking_id, identity="i", experiment="e", name="n", params={}, tags={})
    for step in steps:
        values = {"train/loss": _loss("omics", step), "train/tokens_per_s": 9_876.0 + 300 * math.sin(step)}
        journal.metrics(step, values)
        if step % 10 == 0:
            each = {f"valid/loss/{name}": _loss(name, step) for name in ENTROPY}
            journal.metrics(step, {**each, "valid/loss": sum(each.values()) / len(each)})
    journal.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A run's folder with the records of all stages and pretrain's journal."""
    root = tmp_path / "results" / "demo"
    for name, record in _records().items():
        write_json(root / name / "record.json", record)
    path = root / "pretrain" / "journal.jsonl"
    _write_journal(path, tracking_id=_pretrain()["tracking_id"], steps=range(1, STEPS + 1))
    journal = Journal(path)
    journal.metrics(0, {"valid/loss": 3.1})  # headline figures, as a finished stage leaves them
    journal.end("FINISHED")
    journal.close()
    return root


def _stage(root: Path, *, records: Mapping[str, Values], folder: str = "report") -> Stage:
    sections = dict.fromkeys((*STAGES, "report"), StageConfig())
    site = Site(description="a test", executor="local", nodes=1, tasks_per_node=4, mem_gb=4, timeout_min=5)
    return Stage(
        name="report",
        run="demo",
        site=site,
        folder=root / folder,
        root=root,
        parents=records,
        sections=sections,
        journal=Journal(root / folder / "journal.jsonl"),
        progress=Progress(path=root / folder / "progress.json"),
        seed=1234,
    )


def test_the_stage_writes_a_page_and_a_summary_and_vouches_for_both(root: Path) -> None:
    outcome = run(ReportConfig(title="A title"), _stage(root, records=_records()))
    page = (root / "report" / "report.html").read_text()
    assert outcome.outputs == {name: sha256_file(root / "report" / name) for name in ("report.html", "summary.txt")}
    assert outcome.metrics["stages"] == len(STAGES)
    assert "<h1>A title</h1>" in page
    for name in STAGES:
        assert f'<th scope="row">{name}</th>' in page
    assert "no record" not in page


def test_the_summary_is_a_dozen_lines_that_name_what_was_made(root: Path) -> None:
    run(ReportConfig(), _stage(root, records=_records()))
    lines = (root / "report" / "summary.txt").read_text().splitlines()
    assert 8 <= len(lines) <= 12
    assert lines[0] == "Run demo: run demo at laptop"
    assert "1.55 million parameters" in lines[1]
    assert lines[-1] == "The report: results/demo/report/report.html"


def test_the_same_records_and_journals_give_the_same_bytes(root: Path) -> None:
    first = run(ReportConfig(), _stage(root, records=_records()))
    second = run(ReportConfig(), _stage(root, records=_records(), folder="report"))
    assert first.outputs == second.outputs


@pytest.mark.parametrize("absent", STAGES)
def test_the_page_says_so_when_a_stage_has_no_record(root: Path, absent: str) -> None:
    records = {name: record for name, record in _records().items() if name != absent}
    run(ReportConfig(), _stage(root, records=records))
    page = (root / "report" / "report.html").read_text()
    assert f"Not complete: {absent} has no record." in page
    assert f"stage {absent} has no record" in page


def test_without_journals_the_page_holds_what_the_records_tell(tmp_path: Path) -> None:
    root = tmp_path / "demo"
    run(ReportConfig(), _stage(root, records=_records()))
    page = (root / "report" / "report.html").read_text()
    assert "No validation loss was recorded." in page
    assert "45 s" in page  # six stages of 7.5 seconds


def test_a_stage_that_was_killed_and_went_on_counts_all_its_executions(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    _write_journal(path, tracking_id="mine", steps=range(1, 31))
    _write_journal(path, tracking_id="another", steps=range(1, 3))
    _write_journal(path, tracking_id="mine", steps=range(21, 41))
    work = follow(path, {"tracking_id": "mine", "started": 0.0, "finished": 1.0})
    assert work.executions == 2
    assert sorted(work.curves["train/loss"]) == list(range(1, 41))
    assert work.seconds < 60


def test_the_headline_figures_of_a_finished_stage_are_no_part_of_its_curves(root: Path) -> None:
    findings = gather(_records(), root=root, stages=dict.fromkeys(STAGES, ""), run="demo", title="t")
    assert findings.training is not None
    assert min(findings.training.curves["valid/loss"]) == 10


def test_the_reference_is_weighted_as_the_validation_loss_is(root: Path) -> None:
    records = _records()
    streams = records["pretrain"]["details"]["streams"]
    streams["omics"]["valid_tokens"] = 1025  # 1024 predicted tokens; the others have 16 windows of 256
    findings = gather(records, root=root, stages=dict.fromkeys(STAGES, ""), run="demo", title="t")
    assert findings.training is not None
    others = sum(entropy for name, entropy in ENTROPY.items() if name != "omics")
    wanted = (1024 * ENTROPY["omics"] + 4096 * others) / (1024 + 5 * 4096)
    assert findings.training.entropies[""] == pytest.approx(wanted)
    assert findings.training.tokens == STEPS * 32 * 256


def test_more_processes_than_cpus_do_not_cost_more_cpus(root: Path) -> None:
    findings = gather(_records(), root=root, stages=dict.fromkeys(STAGES, ""), run="demo", title="t")
    assert {stage.name: stage.cpus for stage in findings.stages}["pretrain"] == 2


def test_what_a_stage_does_is_its_modules_first_line(root: Path) -> None:
    run(ReportConfig(), _stage(root, records=_records()))
    page = (root / "report" / "report.html").read_text()
    assert "clean records to token shards" in page
