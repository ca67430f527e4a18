"""What a run found, as plain values: what jobs/report.py reads out of records and journals and the report shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.corpora import Corpus, Source
from evaluation.planned import Plan
from evaluation.statistics import Comparison, Estimate

Curve = Mapping[int, float]
"""Step -> value. A value may be NaN, which breaks the line."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One stage's link of the chain from this page back to raw data.

    Attributes:
        parents: stage -> digest of the record it stands on.
        inputs: what was read from outside the run -> SHA-256.
        outputs: how many files the record vouches for.
        commit: git commit, with + when files had changed; None outside of git.
        lock: SHA-256 of the environment's lock; None without one.
    """

    stage: str
    digest: str
    parents: Mapping[str, str]
    inputs: Mapping[str, str]
    outputs: int
    tracking_id: str
    version: str
    commit: str | None
    lock: str | None
    python: str


@dataclass(frozen=True, kw_only=True)
class StageRun:
    """A stage of the run, done or not.

    Attributes:
        name: the stage.
        does: what it does, in a few words.
        record: None when there is none, and then the figures below say nothing.
        started: seconds since 1970 of its last execution.
        seconds: how long its executions worked, all together.
        executions: how often it was started; more than once means that it was interrupted and went on.
        processes: how many ran side by side.
        cpus: CPUs set aside for it.
        gpus: GPUs set aside for it.
        host: the machine of its first process.
    """

    name: str
    does: str
    record: Record | None = None
    started: float = 0.0
    seconds: float = 0.0
    executions: int = 0
    processes: int = 0
    cpus: int = 0
    gpus: int = 0
    host: str = ""

    @property
    def cpu_hours(self) -> float:
        """CPU-hours set aside: CPUs x time, busy or not."""
        return self.cpus * self.seconds / 3600

    @property
    def gpu_hours(self) -> float:
        """GPU-hours set aside: GPUs x time, busy or not."""
        return self.gpus * self.seconds / 3600


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One token stream of the mixture; `weight` is its share of the training samples, None before tokenizing."""

    name: str
    train_records: int
    valid_records: int
    train_tokens: int | None = None
    valid_tokens: int | None = None
    weight: float | None = None


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the model learned.

    Attributes:
        curves: the journal's metrics, such as "train/loss" and "valid/loss/<stream>", over optimizer steps.
        entropies: unigram entropy of each stream's validation set in nats per token; "" is their mean, weighted as
            "valid/loss" is.
        parameters: of the model; None when neither plan nor export counted them.
        tokens: training tokens seen, all executions together.
        steps: optimizer steps done.
        layout: how the work was spread, in short.
        rates: "tokens_per_s", "tflops_per_s" and "mfu" of the median step; empty when no step was left to do.
        peak_tflops: measured matmul peak of all ranks together.
        resumed_from: step that the last execution continued from; 0 for none.
        set_aside: checkpoints that it refused, and why.
    """

    curves: Mapping[str, Curve]
    entropies: Mapping[str, float]
    parameters: int | None
    tokens: int
    steps: int
    layout: str
    rates: Mapping[str, float]
    peak_tflops: float
    resumed_from: int
    set_aside: Sequence[str]

    @property
    def streams(self) -> list[str]:
        """The streams that were validated, by name."""
        return sorted(name.removeprefix("valid/loss/") for name in self.curves if name.startswith("valid/loss/"))


@dataclass(frozen=True, kw_only=True)
class Example:
    """One item of a benchmark as people read it; `answer` and `chosen` are indices of `choices`."""

    prompt: str
    choices: Sequence[str]
    answer: int
    chosen: int
    probabilities: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A benchmark: accuracy of the model beside a trivial baseline, 0 to 1, on the same items.

    Attributes:
        question: what is asked.
        metric: how an answer is read off the model.
        baseline: what the baseline does.
        chance: accuracy of drawing an answer blindly.
        groups: independent groups that the items belong to.
        truncated: items whose prompt was longer than the model's context.
        streams: accuracy on each stream's items.
    """

    name: str
    question: str
    modality: str
    metric: str
    baseline: str
    chance: float
    groups: int
    truncated: int
    result: Comparison
    streams: Mapping[str, Estimate]
    examples: Sequence[Example]


@dataclass(frozen=True, kw_only=True)
class Export:
    """How far the exported model is from the trained one.

    Attributes:
        difference: the largest difference of two logits.
        bound: what it had to stay below.
        tokens: on how many held-out tokens they were compared.
        same_argmax: share of these tokens whose most likely successor is the same.
        step: optimizer steps of the checkpoint that was exported.
        checkpoint: its digest.
    """

    difference: float
    bound: float
    tokens: int
    same_argmax: float
    step: int
    checkpoint: str


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that the page shows. A part is None when its stage has no record."""

    title: str
    run: str
    site: str
    seed: int
    command: str
    stages: Sequence[StageRun]
    sources: Sequence[Source] = ()
    corpus: Corpus | None = None
    streams: Sequence[Stream] = ()
    training: Training | None = None
    plan: Plan | None = None
    export: Export | None = None
    scores: Sequence[Score] = ()
