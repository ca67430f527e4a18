"""The report: one page for people out of what a run found, complete in itself, without script or network.

render() makes the page, summary() the dozen lines that end `make demo`. Both are functions of the findings alone: the
same records give the same bytes.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evaluation import figures, plan_figures
from evaluation.corpora import left_out, told_terms
from evaluation.findings import Curve, Findings, Score, StageRun, Training
from evaluation.planned import Plan
from evaluation.statistics import Estimate

_FOLDER = Path(__file__).parent
_TOKENS_PER_PARAMETER = 20
_NEAR = (
    "Whether near-duplicates cross the split: exact duplicates were dropped and related records kept together, but "
    "similar records were not looked for."
)
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_LIMITS = """
Whether the model is fit for clinical use: the benchmarks are small held-out parts of the run’s own data; no clinician \
or patient took part.
How another training would end: the intervals cover the choice of items, not another seed or another machine.
Time in a queue and energy: neither was measured.
"""


def render(findings: Findings) -> str:
    """Returns the page as HTML. Every text of the findings is escaped."""
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            findings=findings,
            figures=figures,
            plan_figures=plan_figures,
            verdict=verdict(findings.plan) if findings.plan else "",
            learned=learned(findings.training) if findings.training else "",
            made=made(findings),
            beaten=beaten(findings.scores),
            below=below(findings.training) if findings.training else "",
            final_loss=_last(findings.training.curves.get("valid/loss", {})) if findings.training else None,
            left_out=left_out(findings.sources),
            told_terms=told_terms,
            rejects=sum(sum(source.rejects.values()) for source in findings.sources),
            tokenized=any(stream.train_tokens is not None for stream in findings.streams),
            limits=limits(findings),
            done=[stage for stage in findings.stages if stage.record],
            missing=[stage for stage in findings.stages if not stage.record],
            code=next((stage.record for stage in reversed(findings.stages) if stage.record), None),
        )
    )


def environment() -> Environment:
    """Returns what makes pages out of templates; every text that is put in is escaped."""
    page = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters |= {
        "count": count,
        "percent": percent,
        "points": points,
        "short_digest": short_digest,
        "when": when,
        "duration": figures.duration,
        "data_size": figures.data_size,
        "amount": amount,
        "figure": figure,
        "flops": flops,
        "hours": hours,
        "setting": setting,
        "tiny": tiny,
        "seconds": plan_figures.seconds,
    }
    return page


def summary(findings: Findings, *, page: str) -> str:
    """Returns the run in a dozen lines of plain text: what was made, how well, at what cost, and where the page is."""
    done = [stage for stage in findings.stages if stage.record]
    missing = [stage.name for stage in findings.stages if not stage.record]
    lines = [f"{findings.title}: run {findings.run} at {findings.site}", made(findings)]
    lines += [learned(findings.training)] if findings.training else []
    lines += [_speed(findings.training)] if findings.training and findings.training.rates else []
    lines += [beaten(findings.scores), "; ".join(map(_beside, findings.scores))] if findings.scores else []
    if findings.export:
        lines.append(f"Export: the largest difference of a logit is {tiny(findings.export.difference)}.")
    lines.append(f"Stages: {len(done)} done{f', without a record: {", ".join(missing)}' if missing else ''}.")
    lines.append(f"Cost: {_cost(done)}.")
    lines.append(f"The report: {page}")
    return "\n".join(lines) + "\n"


def made(findings: Findings) -> str:
    """Returns in a sentence what the run made, as far as it came."""
    if findings.training is None:
        return "No model was trained in this run."
    training = findings.training
    number = len(findings.streams)
    streams = f" from {number} stream{'' if number == 1 else 's'} of data" if number else ""
    size = f" of {amount(training.parameters)} parameters" if training.parameters else ""
    return (
        f"A language model{size} was trained on {amount(training.tokens)} tokens{streams} in {count(training.steps)} "
        f"steps, {training.layout}."
    )


def verdict(plan: Plan) -> str:
    """Returns in a sentence how the run's own layout compares with the one that the planner chose."""
    own, chosen = plan.own, plan.chosen
    if chosen is None:
        return "No layout fits: use more GPUs, larger ones or a smaller model."
    if own.layout == chosen.layout:
        return "The planner chose the same layout."
    share = f", at {figures.data_size(chosen.peak)} on the fullest rank"
    if not own.fits:
        step = f": {plan_figures.seconds(chosen.step)} a step" if chosen.step else ""
        return f"The planner chose {chosen.layout}{step}{share}; the run's layout does not fit."
    if own.step and chosen.step:
        quicker = own.step / chosen.step - 1
        compared = f"{percent(abs(quicker))} {'slower' if quicker > 0 else 'faster'}" if quicker else "as fast"
        return (
            f"The planner chose {chosen.layout}: {plan_figures.seconds(chosen.step)} a step{share}; "
            f"the run's layout is {compared}."
        )
    return f"The planner chose {chosen.layout}{share}."


def learned(training: Training) -> str:
    """Returns in a sentence how far the validation loss fell, beside the unigram entropy."""
    points = [(step, loss) for step, loss in sorted(training.curves.get("valid/loss", {}).items()) if isfinite(loss)]
    if not points:
        return "No validation loss was recorded."
    (start, first), (end, last) = points[0], points[-1]
    verb = "fell" if last < first else "rose" if last > first else "stayed"
    moved = f"Validation loss {verb} from {first:.2f} at step {count(start)} to {last:.2f} nats per token"
    if start == end:
        moved = f"Validation loss was {last:.2f} nats per token at step {count(end)}"
    entropy = training.entropies.get("")
    side = "below" if entropy is not None and last < entropy else "not below"
    return f"{moved}." if entropy is None else f"{moved}, {side} the unigram entropy of {entropy:.2f}."


def beaten(scores: Sequence[Score]) -> str:
    """Returns in a sentence how the model compares with the baselines."""
    better = sum(score.result.verdict == "better" for score in scores)
    worse = sum(score.result.verdict == "worse" for score in scores)
    ties = len(scores) - better - worse
    plural = "" if len(scores) == 1 else "s"
    return (
        f"Of {len(scores)} benchmark{plural}, the model is better than its baseline on {better}, worse on {worse}, "
        f"and on {ties} the difference is within what chance explains."
    )


def below(training: Training) -> str:
    """Returns in a sentence on which streams the model learned more than the frequencies of tokens."""
    final = {name: _last(training.curves[f"valid/loss/{name}"]) for name in training.streams}
    known = {name: loss for name, loss in final.items() if loss is not None and name in training.entropies}
    if not known:
        return "The unigram entropies of the streams are not known."
    above = [name for name, loss in known.items() if loss >= training.entropies[name]]
    if not above:
        return "On every stream, the validation loss ended below the unigram entropy of that stream."
    return f"The validation loss did not get below the unigram entropy on {', '.join(above)}."


def limits(findings: Findings) -> list[str]:
    """Returns what a reader must not conclude from the page, one sentence or two each."""
    lines = _LIMITS.strip().splitlines()
    if not any(source.near_duplicates is not None for source in findings.sources):
        lines.insert(2, _NEAR)
    training = findings.training
    if training and training.parameters and training.tokens < _TOKENS_PER_PARAMETER * training.parameters:
        lines.append(
            f"What this model could become: it saw {figure(training.tokens / training.parameters)} training tokens per "
            f"parameter, and about {_TOKENS_PER_PARAMETER} are taken for a good use of compute (Hoffmann et al. 2022, "
            "arXiv:2203.15556)."
        )
    if training and not any(stage.gpus for stage in findings.stages):
        lines.append("Speed on GPUs: this run used none.")
    return lines


def count(number: float) -> str:
    """Returns a whole number with separators: 12,345."""
    return f"{number:,.0f}"


def amount(number: float) -> str:
    """Returns a large number in words: 987, 45,300, 1.23 million, 16.2 billion."""
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if abs(number) >= size:
            return f"{number / size:.3g} {word}"
    return count(number)


def percent(share: float) -> str:
    """Returns a share as a percentage: 41 %, 4.2 %, 0.31 %."""
    value = 100 * share
    digits = 0 if abs(value) >= 10 or not value else 1 if abs(value) >= 1 else 2
    return f"{value:.{digits}f} %"


def figure(number: float) -> str:
    """Returns a measured number with three significant digits: 0.0412, 3.2, 1,230."""
    return count(number) if abs(number) >= 1000 else f"{number:.3g}"


def tiny(number: float) -> str:
    """Returns a number far below 1 as a power of ten: 4.1 × 10⁻⁶."""
    digits, _, power = f"{number:.1e}".partition("e")
    return f"{digits} × 10{str(int(power)).translate(_RAISED)}" if number else "0"


def setting(value: int | str | bool | None) -> str:  # noqa: FBT001 - a value to show, not a switch
    """Returns a setting as people read it: off, on, 32."""
    if value is None or isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def flops(number: float) -> str:
    """Returns a number of FLOPs with its prefix: 41.2 GFLOP, 3.1 PFLOP."""
    for size, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.3g} {prefix}FLOP"
    return f"{number:.0f} FLOP"


def hours(number: float) -> str:
    """Returns hours with two digits, or more where they are few: 12.34, 0.0042, below 0.001."""
    if 0 < number < 0.001:
        return "below 0.001"
    return f"{number:,.2f}" if number >= 0.1 else f"{number:.2g}"


def points(estimate: Estimate) -> str:
    """Returns a difference of shares with its interval, in percentage points: +12 (+4 to +20)."""
    return f"{_signed(estimate.value)} ({_signed(estimate.low)} to {_signed(estimate.high)})"


def short_digest(digest: str) -> str:
    """Returns the beginning of a digest, enough to tell digests apart; + says that files had changed."""
    return digest[:12] + ("+" if digest.endswith("+") else "")


def when(seconds: float) -> str:
    """Returns a time as date and clock, in UTC."""
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M")


def _signed(share: float) -> str:
    text = f"{100 * share:+.1f}".replace("-", "−")
    return text if text.strip("+−0.") else "0.0"


def _last(curve: Curve) -> float | None:
    values = [value for _, value in sorted(curve.items()) if isfinite(value)]
    return values[-1] if values else None


def _speed(training: Training) -> str:
    rates = training.rates
    return (
        f"Speed: {count(rates['tokens_per_s'])} tokens/s, {figure(rates['tflops_per_s'])} TFLOP/s of a measured "
        f"{figure(training.peak_tflops)} (MFU {percent(rates['mfu'])})."
    )


def _beside(score: Score) -> str:
    result = score.result
    return f"{score.name} {percent(result.model.value)} beside {percent(result.baseline.value)} ({result.verdict})"


def _cost(done: Sequence[StageRun]) -> str:
    gpu_hours = sum(stage.gpu_hours for stage in done)
    gpus = f", {hours(gpu_hours)} GPU-hours" if gpu_hours else ""
    time = figures.duration(sum(stage.seconds for stage in done))
    return f"{time} of work, {hours(sum(stage.cpu_hours for stage in done))} CPU-hours{gpus} set aside"
