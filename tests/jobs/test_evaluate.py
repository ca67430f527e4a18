"""The evaluate stage on real records with a model that has learned nothing: what it writes, refuses and repeats."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from corpus.merging import prepare
from corpus.source import Source
from corpus.units import Settings
from evaluation.benchmarks import benchmarks
from evaluation.meeting import Nodes
from jobs._journal import Journal
from jobs._run import ROOT, load
from jobs._stage import Context, Outcome, Progress, Stage
from jobs.evaluate import EvaluateConfig, run
from jobs.prepare import PrepareConfig
from slurm.files import read_json
from slurm.resources import Resources

ASKED = ("molecule_solubility", "text_continuation", "bilingual_pair")


def source(name: str, modality: str, path: str, **settings: Any) -> Source:
    return Source(name=name, modality=modality, path=path, license="CC0-1.0", **settings)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """results/<run> with the records of 80 documents and 60 alkanes, and a small Llama with the tokenizer for them."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from corpus import tokenizer
    from corpus.encoding import make_tokenizer

    root = tmp_path_factory.mktemp("results") / "small"
    rows = [f"{'C' * (length + 1)},{'low' if length > 20 else 'high'}" for length in range(60)]
    root.mkdir()
    (root / "alkanes.csv").write_text("\n".join(["smiles,solubility", *rows]))
    options = {"properties": {"solubility": "solubility"}}
    sources = [
        source("science", "text", str(ROOT / "corpus/samples/science.jsonl")),
        source("alkanes", "molecule", str(root / "alkanes.csv"), options=options),
    ]
    prepare(sources, root / "prepare", settings=Settings(root=root, seed=1, valid_fraction=0.2))
    model = root / "export" / "model"
    tokenizer.save(make_tokenizer(root / "prepare", base=None, vocab_size=1024), model)
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=1024, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    LlamaForCausalLM(shape).save_pretrained(model)
    return root


def stage(root: Path, folder: str) -> Stage:
    _, site = load("demo", "laptop")
    return Stage(
        name="evaluate",
        run="small",
        site=site,
        folder=root / folder,
        root=root,
        parents={},
        sections={},
        journal=Journal(root / folder / "journal.jsonl"),
        progress=Progress(path=root / folder / "progress.json"),
        seed=5,
    )


@pytest.fixture(scope="module")
def outcome(root: Path) -> Outcome:
    return run(EvaluateConfig(benchmarks=ASKED, max_items=40, workers=1), stage(root, "evaluate"))


def test_every_benchmark_has_its_accuracy_beside_its_baseline(outcome: Outcome) -> None:
    assert set(outcome.metrics) == {f"{name}/{metric}" for name in ASKED for metric in ("accuracy", "baseline", "n")}
    assert outcome.metrics["text_continuation/n"] == 40
    assert outcome.metrics["bilingual_pair/baseline"] == 0.25
    assert set(outcome.details["benchmarks"]) == set(ASKED)
    assert all(len(found["samples"]) == 3 for found in outcome.details["benchmarks"].values())
    assert set(outcome.details["benchmarks"]["text_continuation"]["streams"]) == {"text.en", "text.ko"}


def test_the_scores_can_be_worked_out_again_from_the_items(root: Path, outcome: Outcome) -> None:
    lines = [json.loads(line) for line in (root / "evaluate" / "items.jsonl").read_text().splitlines()]
    for name in ASKED:
        rows = [line for line in lines if line["benchmark"] == name]
        key = "logprobs" if name == "molecule_solubility" else "normalized"
        right = [row[key].index(max(row[key])) == row["answer"] for row in rows]
        assert sum(right) / len(rows) == pytest.approx(outcome.metrics[f"{name}/accuracy"])
    assert read_json(root / "evaluate" / "scores.json")["benchmarks"] == outcome.details["benchmarks"]
    assert read_json(root / "evaluate" / "progress.json")["done"] == len(lines)


def test_doing_it_again_gives_the_same_digests(root: Path, outcome: Outcome) -> None:
    again = run(EvaluateConfig(benchmarks=ASKED, max_items=40, workers=2), stage(root, "evaluate"))
    assert again == outcome


def test_a_benchmark_that_finds_nothing_is_named(root: Path) -> None:
    with pytest.raises(ValueError, match=r"but cell_type found nothing; its file says what it reads: prepare that"):
        run(EvaluateConfig(benchmarks=("molecule_solubility", "cell_type")), stage(root, "nothing"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cell_typ"], r"'cell_typ' is none; did you mean cell_type\?"),
        (["cell_type", "cell_type"], "must name each benchmark once, but cell_type is there twice; remove one"),
        ([], "at least 1 item"),
    ],
    ids=["misspelt", "twice", "none"],
)
def test_refuses_while_planning(names: list[str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EvaluateConfig.model_validate({"benchmarks": names})


def test_a_benchmark_needs_a_source_of_its_modality() -> None:
    prepare = PrepareConfig(sources=(source("science", "text", "corpus/samples/science.jsonl"),))
    config = EvaluateConfig(benchmarks=("text_continuation", "cell_type"))
    found = list(config.problems(Context(sections={"prepare": prepare}, root=ROOT)))
    wrong = "but cell_type asks about omics, and prepare.sources has text; remove it or add a source"
    assert found == [f"benchmarks.1: must ask about a prepared modality, {wrong}"]
    assert not list(config.problems(Context(sections={}, root=ROOT))), "a faulty prepare section says enough itself"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"workers": 5},
            "workers: must be at most 4, one for each CPU of 2 nodes, but is 5; raise resources.cpus_per_task",
        ),
        (
            {"workers": 4, "ray_address": "head:6379"},
            "ray_address: must be left out where the stage has nodes of its own, but resources.nodes is 2; remove one",
        ),
    ],
    ids=["too many workers", "two clusters"],
)
def test_refuses_what_several_nodes_cannot_do(settings: dict[str, Any], message: str) -> None:
    resources = {"nodes": 2, "cpus_per_task": 2}
    config = EvaluateConfig.model_validate({"benchmarks": ["cell_type"], "resources": resources, **settings})
    assert list(config.problems(Context(sections={}, root=ROOT))) == [message]


def test_a_rank_above_0_lends_its_node(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Nodes] = []
    monkeypatch.setattr("evaluation.nodes.serve", served.append)
    _, site = load("demo-cluster", "cluster-test")
    of_two = replace(stage(root, "lent"), site=site, rank=1, world_size=2, meeting=root / "meeting")
    config = EvaluateConfig(benchmarks=ASKED, resources=Resources(nodes=2, cpus_per_task=3, gpus_per_node=4))
    assert run(config, of_two) == Outcome(metrics={})
    assert served == [Nodes(count=2, meeting=root / "meeting", cpus=3, gpus=4, interface="eth0")]
    assert not (root / "lent" / "scores.json").exists()


def test_the_demo_asks_all_benchmarks() -> None:
    sections = load("demo", "laptop")[0].sections
    assert isinstance(sections["evaluate"], EvaluateConfig)
    assert set(sections["evaluate"].benchmarks) == set(benchmarks())
