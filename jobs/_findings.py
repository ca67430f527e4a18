"""What the report is made of: reads the stages' records and journals into the plain values that the page shows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.findings import (
    Curve,
    Example,
    Export,
    Findings,
    Record,
    Score,
    StageRun,
    Stream,
    Training,
)
from evaluation.statistics import Comparison, Estimate
from jobs._corpus import corpus, sources
from jobs._journal import NAME, read_entries
from jobs._planned import planned

Values = Mapping[str, Any]
"""A record, or a part of one."""

_NOTHING: Values = {"site": "unknown", "seed": 0}


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a journal tells of the executions that led to a record."""

    started: float
    seconds: float
    executions: int
    curves: Mapping[str, Curve] = field(default_factory=dict)


def gather(records: Mapping[str, Values], *, root: Path, stages: Mapping[str, str], run: str, title: str) -> Findings:
    """Returns all that the page shows.

    Args:
        records: stage -> its record.
        root: results/<run>, where the stages' journals lie.
        stages: every stage that the page is about, in order -> what it does.
        run: the run's name.
        title: the page's headline.
    """
    works = {name: follow(root / name / NAME, record) for name, record in records.items()}
    latest: Values = next((records[name] for name in reversed(list(stages)) if name in records), _NOTHING)
    return Findings(
        title=title,
        run=run,
        site=latest["site"],
        seed=latest["seed"],
        command=f"make demo run={run} site={latest['site']}",
        stages=[_stage_run(name, does, records.get(name), works.get(name)) for name, does in stages.items()],
        sources=sources(records["prepare"], records.get("tokenize")) if "prepare" in records else (),
        corpus=corpus(records["prepare"], records.get("tokenize")) if "prepare" in records else None,
        streams=_streams(records) if "prepare" in records else (),
        training=_training(records, works["pretrain"].curves) if "pretrain" in records else None,
        plan=planned(records["plan"]["details"]) if "plan" in records else None,
        export=_export(records["export"]) if "export" in records else None,
        scores=_scores(records["evaluate"]) if "evaluate" in records else (),
    )


def follow(journal: Path, record: Values) -> Work:
    """Returns the work behind a record: the executions that its journal holds under the record's tracking id.

    A stage that was killed and went on has several. Without them, the record's own times are all there is.
    """
    own = [each for each in _executions(journal) if each[0]["tracking_id"] == record["tracking_id"]]
    if not own:
        return Work(started=record["started"], seconds=record["finished"] - record["started"], executions=1)
    return Work(
        started=own[0][0]["time"] / 1000,
        seconds=sum(each[-1]["time"] - each[0]["time"] for each in own) / 1000,
        executions=len(own),
        curves=_curves([entry for each in own for entry in each]),
    )


def _executions(journal: Path) -> Iterator[list[Values]]:
    """Yields the entries of each execution, from its start entry on."""
    execution: list[Values] = []
    for entry, _ in read_entries(journal) if journal.is_file() else ():
        if entry["kind"] == "start" and execution:
            yield execution
            execution = []
        if entry["kind"] == "start" or (execution and "time" in entry):
            execution.append(entry)
    if execution:
        yield execution


def _curves(entries: Sequence[Values]) -> dict[str, dict[int, float]]:
    """Returns metric -> step -> value; steps done again after a checkpoint count as they were done last.

    Step 0 is left out: a finished stage journals its headline figures there, under the names of its curves.
    """
    curves: dict[str, dict[int, float]] = {}
    for entry in entries:
        if entry["kind"] == "metrics" and entry["step"] > 0:
            for name, value in entry["values"].items():
                curves.setdefault(name, {})[entry["step"]] = float(value)
    return curves


def _stage_run(name: str, does: str, record: Values | None, work: Work | None) -> StageRun:
    if record is None or work is None:
        return StageRun(name=name, does=does)
    asked, host = record["resources"], record["host"]
    processes = asked["nodes"] * asked["tasks_per_node"]
    return StageRun(
        name=name,
        does=does,
        record=_record(record),
        started=work.started,
        seconds=work.seconds,
        executions=work.executions,
        processes=processes,
        cpus=min(processes * asked["cpus_per_task"], asked["nodes"] * host["cpus"]),
        gpus=asked["nodes"] * asked["gpus_per_node"],
        host=f"{host['name']} ({host['machine']}, {host['cpus']} CPUs)",
    )


def _record(record: Values) -> Record:
    code = record["code"]
    return Record(
        stage=record["stage"],
        digest=record["digest"],
        parents=record["parents"],
        inputs=record["inputs"],
        outputs=len(record["outputs"]),
        tracking_id=record["tracking_id"],
        version=code["version"],
        commit=code["commit"],
        lock=code["lock"],
        python=code["python"],
    )


def _streams(records: Mapping[str, Values]) -> list[Stream]:
    counts = records["prepare"]["metrics"]
    names = sorted({name.split("/")[1] for name in counts if name.startswith("records/")})
    tokens = records["tokenize"]["details"]["streams"] if "tokenize" in records else {}
    return [
        Stream(
            name=name,
            train_records=int(counts.get(f"records/{name}/train", 0)),
            valid_records=int(counts.get(f"records/{name}/valid", 0)),
            **_tokens(tokens.get(name)),
        )
        for name in names
    ]


def _tokens(row: Values | None) -> dict[str, Any]:
    if row is None:
        return {}
    return {"train_tokens": row["train_tokens"], "valid_tokens": row["valid_tokens"], "weight": row["mixture"]}


def _training(records: Mapping[str, Values], curves: Mapping[str, Curve]) -> Training:
    record = records["pretrain"]
    config, metrics, details = record["config"], record["metrics"], record["details"]
    steps = details["checkpoint"]["step"]
    rates = {name: f"train/{name}" for name in ("tokens_per_s", "tflops_per_s", "mfu")}
    return Training(
        curves=curves,
        entropies=_entropies(details["streams"], predicted=config["eval_samples"] * config["seq_length"]),
        parameters=_parameters(records),
        tokens=steps * config["global_batch_size"] * config["seq_length"],
        steps=steps,
        layout=_spread(record),
        rates={name: metrics[key] for name, key in rates.items() if key in metrics},
        peak_tflops=metrics["train/peak_tflops"],
        resumed_from=details["resumed_from"],
        set_aside=details["set_aside"],
    )


def _parameters(records: Mapping[str, Values]) -> int | None:
    """Returns the model's parameters; the plan and the export count them."""
    found = [records[name]["metrics"]["parameters"] for name in ("export", "plan") if name in records]
    return int(found[0]) if found else None


def _spread(pretrain: Values) -> str:
    config, asked = pretrain["config"], pretrain["resources"]
    tensor, pipeline = config["tensor_model_parallel_size"], config["pipeline_model_parallel_size"]
    processes = asked["nodes"] * asked["tasks_per_node"]
    return f"tensor parallel {tensor} × pipeline parallel {pipeline} on {processes} processes"


def _entropies(streams: Mapping[str, Values], *, predicted: int) -> dict[str, float]:
    """Returns each stream's unigram entropy, and under "" their mean, weighted as the validation loss is.

    Args:
        streams: stream -> its held-out tokens and their entropy.
        predicted: most tokens of one stream that a validation predicts; a stream's first token never is.
    """
    entropies = {name: row["unigram_entropy"] for name, row in streams.items()}
    weights = {name: max(0, min(row["valid_tokens"] - 1, predicted)) for name, row in streams.items()}
    total = sum(weights.values())
    return entropies | {"": sum(weights[name] * entropies[name] for name in entropies) / total} if total else entropies


def _export(record: Values) -> Export:
    details, metrics = record["details"], record["metrics"]
    streams = details["streams"]
    return Export(
        difference=metrics["max_logit_difference"],
        bound=record["config"]["max_logit_difference"],
        tokens=sum(row["tokens"] for row in streams.values()),
        same_argmax=metrics["same_argmax"],
        step=details["checkpoint"]["step"],
        checkpoint=details["checkpoint"]["digest"],
    )


def _scores(record: Values) -> list[Score]:
    return [_score(name, row) for name, row in record["details"]["benchmarks"].items()]


def _score(name: str, row: Values) -> Score:
    baseline = {key: value for key, value in row["baseline"].items() if key != "name"}
    return Score(
        name=name,
        question=row["question"],
        modality=row["modality"],
        metric=row["metric"],
        baseline=row["baseline"]["name"],
        chance=row["chance"],
        groups=row["groups"],
        truncated=row["truncated"],
        result=Comparison(
            model=Estimate(**row["accuracy"]),
            baseline=Estimate(**baseline),
            difference=Estimate(**row["difference"]),
            verdict=row["verdict"],
        ),
        streams={stream: Estimate(**each) for stream, each in row["streams"].items()},
        examples=[_example(sample) for sample in row["samples"]],
    )


def _example(sample: Values) -> Example:
    names = ("prompt", "choices", "answer", "chosen", "probabilities")
    return Example(**{name: sample[name] for name in names})
