"""The report's page: complete in itself, safe against hostile text, honest about what is missing."""

import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from evaluation import report
from evaluation.corpora import Contamination, Corpus, Sample, Source
from evaluation.figures import data_size, duration
from evaluation.findings import (
    Example,
    Export,
    Findings,
    Record,
    Score,
    StageRun,
    Stream,
    Training,
)
from evaluation.planned import Alternative, Choice, Plan, Refusal, StageMemory
from evaluation.statistics import Comparison, Estimate

VOID = {"meta", "link", "br"}
BAD = '<script>alert("x")</script><img src=http://evil.example/a>'


class _Page(HTMLParser):
    """Reads a page: its tags, links and text; every tag must be closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._see(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._see(tag, attrs)

    def _see(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action", "data", "xlink:href")]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _estimate(value: float, half: float = 0.05) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half, n=200)


def _score(name: str, *, verdict: str, text: str) -> Score:
    difference = {"better": 0.2, "tie": 0.01, "worse": -0.2}[verdict]
    return Score(
        name=name,
        question=f"What is asked? {text}",
        modality="molecule",
        metric="accuracy by log-probability",
        baseline=f"the most common class {text}",
        chance=0.25,
        groups=190,
        truncated=3,
        result=Comparison(
            model=_estimate(0.5 + difference),
            baseline=_estimate(0.5),
            difference=_estimate(difference),
            verdict=verdict,  # type: ignore[arg-type] # one of three texts
        ),
        streams={"text.en": _estimate(0.5), "text.ko": _estimate(0.4)},
        examples=[Example(prompt=text, choices=[text, "한국어 선택지"], answer=0, chosen=1, probabilities=[0.4, 0.6])],
    )


def _stage(name: str, *, text: str = "", parents: Mapping[str, str] | None = None) -> StageRun:
    record = Record(
        stage=name,
        digest="d" * 64,
        parents=parents or {},
        inputs={f"data/{name}{text}.csv": "e" * 64},
        outputs=3,
        tracking_id=f"0123456789abcdef{text}",
        version="0.1.0",
        commit="c" * 40,
        lock="f" * 64,
        python="3.12.1",
    )
    return StageRun(
        name=name,
        does=f"does {name} {text}",
        record=record,
        started=1_763_715_000.0,
        seconds=90.0,
        executions=2,
        processes=4,
        cpus=2,
        gpus=0,
        host=f"node-1 {text}",
    )


def _findings(text: str = "") -> Findings:
    """Findings with every part; `text` is put wherever a text of a run can come from outside."""
    losses = {step: 8.0 / (1 + step / 50) + 2 for step in range(1, 101)}
    curves = {"train/loss": losses, "valid/loss": {50: 6.0, 100: 4.5}, f"valid/loss/s{text}": {50: 6.0, 100: 4.5}}
    return Findings(
        title=f"A run {text}",
        run=f"demo{text}",
        site=f"laptop{text}",
        seed=7,
        command=f"make demo run=demo{text}",
        stages=[_stage("prepare", text=text), _stage("pretrain", text=text, parents={"prepare": "d" * 64})],
        sources=[
            Source(
                name=f"drugs{text}",
                modality="molecule",
                license=f"CC-BY-NC-4.0{text}",
                commercial=False,
                records=90,
                duplicates=4,
                rejects={f"not_parsable{text}": 5, "too_long": 1},
                notes=[f"a note {text}"],
                scale="L2",
                path="data/drugs.csv",
                terms={"commercial": False, "derivatives": True, "expires": f"2027-01-01{text}"},
                near_duplicates=7,
                quarantined=3,
                contaminated=2,
                filtered=11,
                tokens=900,
                share=0.9,
            )
        ],
        corpus=Corpus(
            modalities={"molecule": {"": 500}, f"text{text}": {"en": 300, f"ko{text}": 100}},
            languages={"en": 300, "ko": 100},
            scales={f"L2{text}": 500, "L1": 400},
            personal={f"resident_number{text}": 3},
            quality={f"repeated_lines{text}": 11},
            contamination=[Contamination(benchmark=f"kormedmcqa{text}", items=435, found=2, records=2)],
            crossings=[(f"drugs{text}", f"labels{text}", 4)],
            phases={f"main{text}": {f"s{text}": 1.0}},
            padding={f"s{text}": 0.12},
            chars_per_token={f"s{text}": 3.91},
            samples=[Sample(stream=f"s{text}", id=f"0a1b{text}", source=f"drugs{text}", text=f"아스피린 {text}")],
            untold=[f"tokenize's record does not tell phases {text}"],
        ),
        streams=[
            Stream(name=f"s{text}", train_records=80, valid_records=10, train_tokens=900, valid_tokens=100, weight=1.0)
        ],
        training=Training(
            curves=curves,
            entropies={"": 5.5, f"s{text}": 5.5},
            parameters=1_500_000,
            tokens=819_200,
            steps=100,
            layout="tensor parallel 2 × pipeline parallel 2 on 4 processes",
            rates={"tokens_per_s": 9_876.0, "tflops_per_s": 0.04, "mfu": 0.21},
            peak_tflops=0.19,
            resumed_from=50,
            set_aside=[f"step_00000060: a digest differs {text}"],
        ),
        plan=Plan(
            own=Choice(
                layout="TP2 PP2",
                sizes={"world_size": 4, "sequence_parallel": False, "recompute_granularity": None},
                memory=[StageMemory(parameters=2e6, gradients=2e6, optimizer=4e6, activations=6e7)],
                fits=True,
                times={},
                passes=[(1e9, 2e9)],
                num_microbatches=4,
                num_model_chunks=1,
                bubble_fraction=0.2,
            ),
            chosen=None,
            device_bytes=5e9,
            reserve_bytes=1e9,
            step_flops=6.3e10,
            assumptions=[f"FLOPs: matmuls only {text}."],
            warnings=[f"few microbatches {text}"],
            alternatives=[Alternative(layout=f"TP1{text}", peak=1e8, bubble_fraction=0.0, slower_than_best=1.0)],
            refused=[Refusal(reason=f"must divide {text}", count=12, example=f"TP4{text}")],
        ),
        export=Export(
            difference=4.1e-6,
            bound=1e-3,
            tokens=3_072,
            same_argmax=1.0,
            step=100,
            checkpoint="a" * 64,
        ),
        scores=[_score(f"{name}{text}", verdict=name, text=text) for name in ("better", "tie", "worse")],
    )


def _bare() -> Findings:
    """Findings of a run of which nothing is done."""
    return Findings(
        title="A run",
        run="demo",
        site="laptop",
        seed=7,
        command="make demo",
        stages=[StageRun(name="prepare", does="x")],
    )


@pytest.mark.parametrize("findings", [_findings(), _findings(BAD), _bare()], ids=["full", "hostile", "bare"])
def test_the_page_is_well_formed_and_needs_nothing_from_outside(findings: Findings) -> None:
    html = report.render(findings)
    page = _Page(html)
    assert html.startswith("<!doctype html>")
    assert {"h1", "h2", "main", "nav", "header", "footer"} <= set(page.tags)
    assert not {"script", "img", "iframe", "object", "embed", "form", "base", "foreignobject"} & set(page.tags)
    assert page.tags.count("h1") == 1
    assert len(page.ids) == len(set(page.ids))
    assert all(link == "data:," or link.removeprefix("#") in page.ids for link in page.links)
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in html


def test_hostile_text_is_shown_as_text() -> None:
    html = report.render(_findings(BAD))
    assert "<script" not in html
    assert "<img" not in html
    assert BAD in "".join(_Page(html).text)


def test_the_same_findings_give_the_same_bytes() -> None:
    assert report.render(_findings()) == report.render(_findings())


def test_figures_have_captions_and_charts_have_titles() -> None:
    page = _Page(report.render(_findings()))
    charts = page.tags.count("svg")
    assert charts == 2 * 8 + 1  # eight figures for a desk and a phone, and one small multiple
    assert page.tags.count("desc") == charts
    assert page.tags.count("figcaption") == 8


def test_the_page_says_what_was_found() -> None:
    text = re.sub(r"\s+", " ", "".join(_Page(report.render(_findings())).text))
    for wanted in (
        "A language model of 1.5 million parameters was trained on 819,200 tokens from 1 stream of data in 100 steps",
        "Validation loss fell from 6.00 at step 50 to 4.50 nats per token, below the unigram entropy of 5.50.",
        "Training was interrupted and continued from the checkpoint of step 50.",
        "A checkpoint was set aside: step_00000060: a digest differs",
        "A model trained on this data must not be used commercially as it is: drugs does not allow it.",
        "not commercially usable",
        "5 not parsable, 1 too long",
        "no commercial use, derivatives, until 2027-01-01",
        "3 with personal data",
        "7 near",
        "Personal data: resident number",
        "In drugs and labels",
        "kormedmcqa",
        "Not known: tokenize's record does not tell phases",
        "아스피린",
        "holds personal data",
        "That is 21 % (MFU) of the 0.19 TFLOP/s",
        "On every stream, the validation loss ended below the unigram entropy of that stream.",
        "Of 3 benchmarks, the model is better than its baseline on 1, worse on 1, and on 1 the difference",
        "+20.0 (+15.0 to +25.0)",
        "no two differ by more than 4.1 × 10⁻⁶; 0.001 is allowed",
        "One optimizer step costs 63 GFLOP",
        "2 starts",
        "한국어 선택지",
        "make demo run=demo",
        "Speed on GPUs: this run used none.",
    ):
        assert wanted in text


def test_nothing_done_is_said_section_by_section() -> None:
    text = "".join(_Page(report.render(_bare())).text)
    assert "No model was trained in this run." in text
    for stage in ("prepare", "pretrain", "plan", "evaluate", "export"):
        assert f"The stage {stage} has no record in this run" in text


@pytest.mark.parametrize(
    ("curve", "entropy", "says"),
    [
        (
            {50: 6.0, 100: 4.0},
            5.0,
            "fell from 6.00 at step 50 to 4.00 nats per token, below the unigram entropy of 5.00.",
        ),
        (
            {50: 6.0, 100: 7.0},
            5.0,
            "rose from 6.00 at step 50 to 7.00 nats per token, not below the unigram entropy of 5.00.",
        ),
        ({50: float("nan"), 100: 4.0}, 5.0, "4.00 nats per token at step 100, below"),
        ({}, 5.0, "No validation loss was recorded."),
    ],
)
def test_the_sentence_on_learning_follows_the_numbers(curve: dict[int, float], entropy: float, says: str) -> None:
    training = _findings().training
    assert training
    found = report.learned(replace(training, curves={"valid/loss": curve}, entropies={"": entropy}))
    assert says in found


def test_a_stream_that_was_not_learned_is_named() -> None:
    training = _findings().training
    assert training
    assert report.below(replace(training, entropies={"s": 1.0})) == (
        "The validation loss did not get below the unigram entropy on s."
    )


def test_an_export_without_any_difference_is_called_equal() -> None:
    export = _findings().export
    assert export
    html = report.render(replace(_findings(), export=replace(export, difference=0.0)))
    assert "equal to the last bit" in html


def test_a_changed_work_tree_is_not_passed_off_as_its_commit() -> None:
    stage = _stage("prepare")
    assert stage.record
    changed = replace(stage, record=replace(stage.record, commit="c" * 40 + "+"))
    html = report.render(replace(_findings(), stages=[changed]))
    assert "Files had changed since that commit" in html
    assert "Check out commit" not in html


def test_gpu_hours_are_shown_where_there_are_gpus() -> None:
    stage = replace(_stage("pretrain"), gpus=8, seconds=3600.0)
    html = report.render(replace(_findings(), stages=[stage]))
    assert "GPU-hours" in html
    assert "8.00" in html
    assert "Speed on GPUs" not in html


def test_the_summary_is_short_and_ends_with_the_page() -> None:
    lines = report.summary(_findings(), page="results/demo/report/report.html").splitlines()
    assert 8 <= len(lines) <= 12
    assert lines[-1] == "The report: results/demo/report/report.html"
    assert "better 70 % beside 50 % (better); tie 51 % beside 50 % (tie); worse 30 % beside 50 % (worse)" in lines
    assert "without a record: prepare" in report.summary(_bare(), page="p")


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (report.count(12345.4), "12,345"),
        (report.amount(987), "987"),
        (report.amount(16_242_181_824), "16.2 billion"),
        (report.percent(0), "0 %"),
        (report.percent(0.0042), "0.42 %"),
        (report.percent(0.415), "42 %"),
        (report.tiny(4.13e-6), "4.1 × 10⁻⁶"),
        (report.tiny(0), "0"),
        (report.figure(0.03971), "0.0397"),
        (report.figure(1234.5), "1,234"),
        (report.flops(6.28e10), "62.8 GFLOP"),
        (report.flops(12), "12 FLOP"),
        (report.hours(12.345), "12.35"),
        (report.hours(0.0042), "0.0042"),
        (report.hours(0.00001), "below 0.001"),
        (report.points(Estimate(value=0.0, low=-0.0001, high=0.05, n=9)), "0.0 (0.0 to +5.0)"),
        (report.setting(None), "off"),
        (report.setting(True), "on"),
        (report.setting(32), "32"),
        (report.when(0), "1970-01-01 00:00"),
        (report.short_digest("c" * 40 + "+"), "c" * 12 + "+"),
        (duration(0.44), "0.4 s"),
        (duration(59.7), "1 min 00 s"),
        (duration(7500), "2 h 05 min"),
        (data_size(100), "100 B"),
        (data_size(79 * 2**30), "79 GiB"),
    ],
)
def test_numbers_are_rounded_for_people(shown: str, text: str) -> None:
    assert shown == text
