"""The report's figures: each is drawn twice, for a desk and for a phone, and the page shows the one that fits."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from evaluation import canvas, charts
from evaluation.charts import Bar, Dot, Reference, Series
from evaluation.corpora import Corpus
from evaluation.findings import Curve, Score, StageRun, Stream, Training

_MOST_REASONS, _MOST_LANGUAGES = 12, 5


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One chart in both widths, as SVG."""

    wide: str
    narrow: str


def timeline(stages: Sequence[StageRun]) -> Figure:
    """Draws how long each stage worked, each beginning where the last one ended."""
    unit, seconds = ("hours", 3600) if sum(stage.seconds for stage in stages) > 2 * 3600 else ("minutes", 60)
    rows, start = [], 0.0
    for stage in stages:
        length = stage.seconds / seconds
        note = duration(stage.seconds) if stage.record else "did not run"
        rows.append(Bar(label=stage.name, parts=[("work", length)] if stage.record else [], note=note, start=start))
        start += length
    return both(
        lambda width: charts.bars(
            rows,
            title="How long each stage worked",
            description="; ".join(f"{row.label}: {row.note}" for row in rows),
            x_label=f"{unit} of work since the start, waiting left out",
            width=width,
        )
    )


def mixture(streams: Sequence[Stream]) -> Figure:
    """Draws each stream's share of the training samples beside its share of the tokens there are."""
    total = sum(stream.train_tokens or 0 for stream in streams) or 1
    shares = [(stream.name, 100 * (stream.weight or 0), 100 * (stream.train_tokens or 0) / total) for stream in streams]
    rows = [
        Dot(label=name, value=weight, interval=None, other=tokens, note=f"{weight:.0f} % beside {tokens:.0f} %")
        for name, weight, tokens in shares
    ]
    names = ("share of samples", "share of tokens")
    most = max([max(row.value, row.other) for row in rows], default=1.0)
    return both(
        lambda width: charts.dots(
            rows,
            title="The data mixture",
            description="; ".join(f"{row.label}: {row.note}" for row in rows),
            x_label="percent",
            x_range=(0, most),
            names=names,
            width=width,
        )
    )


def token_kinds(corpus: Corpus) -> Figure:
    """Draws each modality's training tokens, one part for each language; the rarest languages together."""
    known = Counter[str]()
    for each in corpus.modalities.values():
        known.update({language: number for language, number in each.items() if language})
    common = sorted(known, key=lambda language: (-known[language], language))[:_MOST_LANGUAGES]
    names = {"": "no language", **{language: language for language in common}}
    rows = [
        Bar(label=name, parts=_by_language(each, names), note=f"{sum(each.values()):,}")
        for name, each in corpus.modalities.items()
    ]
    return both(
        lambda width: charts.bars(
            rows,
            title="Tokens of the corpus",
            description="; ".join(f"{row.label}: {row.note}" for row in rows),
            x_label="training tokens",
            width=width,
            key=[*names.values(), *(["other languages"] if len(known) > len(common) else [])],
        )
    )


def _by_language(tokens: Mapping[str, int], names: Mapping[str, str]) -> list[tuple[str, float]]:
    other = sum(number for language, number in tokens.items() if language not in names)
    return [*((name, float(tokens.get(language, 0))) for language, name in names.items()), ("other languages", other)]


def left_out(reasons: Sequence[tuple[str, int]]) -> Figure:
    """Draws how many items and records were left out, by reason; the rarest together."""
    rest = sum(number for _, number in reasons[_MOST_REASONS:])
    told = [*reasons[:_MOST_REASONS], *([("other reasons", rest)] if rest else [])]
    rows = [Bar(label=reason, parts=[(reason, float(number))], note=f"{number:,}") for reason, number in told]
    return both(
        lambda width: charts.bars(
            rows,
            title="What was left out",
            description="; ".join(f"{row.label}: {row.note}" for row in rows),
            x_label="items and records",
            width=width,
        )
    )


def losses(training: Training) -> Figure:
    """Draws the loss on training and validation data, beside the validation set's unigram entropy."""
    series = [
        _ended(_series(training.curves, "train/loss", label="training", style="faint")),
        _ended(_series(training.curves, "valid/loss", label="validation", style="main")),
    ]
    return _lines(
        series,
        title="Loss",
        description="Loss on training and validation data in nats per token over optimizer steps.",
        y_label="loss, nats per token",
        references=_reference(training, ""),
    )


def stream_losses(training: Training) -> list[Figure]:
    """Draws each stream's loss on one common scale, beside the unigram entropy of its held-out data."""
    found = {name: _stream_series(training, name) for name in training.streams}
    values = [y for series in found.values() for line in series for _, y in line.points if isfinite(y)]
    values += [training.entropies[name] for name in found if name in training.entropies]
    return [
        _single(
            charts.lines(
                series,
                title=f"Loss of {name}",
                description=f"Training and validation loss of {name} in nats per token over optimizer steps.",
                x_label="optimizer steps",
                y_label=f"{name}, nats per token",
                references=_reference(training, name),
                y_range=(min(values), max(values)) if values else None,
                size=canvas.SMALL,
            )
        )
        for name, series in found.items()
    ]


def throughput(training: Training) -> Figure:
    """Draws the training tokens per second of each step."""
    median = training.rates.get("tokens_per_s")
    return _lines(
        [_series(training.curves, "train/tokens_per_s", label="each step", style="faint")],
        title="Throughput",
        description="Training tokens per second over optimizer steps.",
        y_label="training tokens per second",
        references=[Reference(label=f"median {canvas.short(round(median))}", y=median)] if median else [],
        from_zero=True,
    )


def scores(found: Sequence[Score]) -> Figure:
    """Draws each benchmark's accuracy with its 95 % interval beside the baseline's."""
    rows = [
        Dot(
            label=score.name,
            value=100 * score.result.model.value,
            interval=(100 * score.result.model.low, 100 * score.result.model.high),
            other=100 * score.result.baseline.value,
            other_interval=(100 * score.result.baseline.low, 100 * score.result.baseline.high),
            note=f"{100 * score.result.model.value:.0f} %, baseline {100 * score.result.baseline.value:.0f} %",
        )
        for score in found
    ]
    return both(
        lambda width: charts.dots(
            rows,
            title="Benchmarks beside their baselines",
            description="; ".join(f"{row.label}: {row.note}" for row in rows),
            x_label="items answered correctly, percent",
            x_range=(0, 100),
            names=("this model", "trivial baseline"),
            width=width,
        )
    )


def data_size(count: float) -> str:
    """Returns bytes as people read them: 512 B, 4.2 MiB, 79 GiB."""
    for size, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float) -> str:
    """Returns a time as people read it: 0.4 s, 48 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _lines(
    series: Sequence[Series],
    *,
    title: str,
    description: str,
    y_label: str,
    references: Sequence[Reference],
    from_zero: bool = False,
) -> Figure:
    ys = [y for line in series for _, y in line.points if isfinite(y)] + [each.y for each in references]

    def draw(size: canvas.Size) -> str:
        return charts.lines(
            series,
            title=title,
            description=description,
            x_label="optimizer steps",
            y_label=y_label,
            references=references,
            y_range=(0, max(ys)) if from_zero and ys else None,
            size=size,
        )

    return Figure(wide=draw(canvas.WIDE), narrow=draw(canvas.NARROW))


def _series(curves: Mapping[str, Curve], name: str, *, label: str, style: str) -> Series:
    return Series(label=label, points=sorted(curves.get(name, {}).items()), style=style)


def _stream_series(training: Training, name: str) -> list[Series]:
    valid = _series(training.curves, f"valid/loss/{name}", label="valid", style="main")
    return [_series(training.curves, f"train/loss/{name}", label="train", style="faint"), _ended(valid)]


def _reference(training: Training, name: str) -> list[Reference]:
    entropy = training.entropies.get(name)
    return [] if entropy is None else [Reference(label=f"unigram {entropy:.2f}", y=entropy)]


def _ended(line: Series) -> Series:
    """Returns a line whose label tells its last value."""
    values = [y for _, y in line.points if isfinite(y)]
    label = f"{line.label} {values[-1]:.2f}" if values else line.label
    return Series(label=label, points=line.points, style=line.style)


def _single(svg: str) -> Figure:
    return Figure(wide=svg, narrow=svg)


def both(draw: Callable[[int], str]) -> Figure:
    """Returns a figure that is drawn for both widths."""
    return Figure(wide=draw(canvas.WIDE[0]), narrow=draw(canvas.NARROW[0]))
