"""Mixtures: weights by tokens, temperature, language and hand, and no stream seen more often than allowed."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from corpus.mixture import Mixing, Stretch, capped, course, languages, shares

TOKENS = {"protein": 10_000, "text.en": 6400, "text.ko": 100, "none": 0}


def mixed(**given: Any) -> dict[str, float]:
    return shares(TOKENS, Mixing.model_validate(given))[0]


def test_streams_count_by_the_root_of_their_tokens_or_as_asked() -> None:
    assert mixed() == pytest.approx({"protein": 100 / 190, "text.en": 80 / 190, "text.ko": 10 / 190})
    assert mixed(temperature=1) == pytest.approx(
        {"protein": 10_000 / 16_500, "text.en": 6400 / 16_500, "text.ko": 100 / 16_500}
    )
    assert mixed(temperature=1e9) == pytest.approx({"protein": 1 / 3, "text.en": 1 / 3, "text.ko": 1 / 3})
    assert mixed(mixture={"protein": 1, "text.ko": 3, "text.en": 0}) == {"protein": 0.25, "text.ko": 0.75}


def test_factors_are_of_streams_modalities_and_languages() -> None:
    found = mixed(upsample={"ko": 3, "text": 2, "protein": 0.5})
    assert found == pytest.approx({"protein": 50 / 270, "text.en": 160 / 270, "text.ko": 60 / 270})
    assert mixed(mixture={"protein": 1, "text.ko": 1}, upsample={"text.ko": 3}) == {"protein": 0.25, "text.ko": 0.75}


def test_languages_share_what_their_modality_has() -> None:
    text = 90 / 190
    found = mixed(languages={"alpha": 0.5, "beta": {"en": 1, "ko": 3}})
    english = 0.5 * 6400 / 6500 + 0.5 * 0.25
    assert found == pytest.approx({"protein": 100 / 190, "text.en": text * english, "text.ko": text * (1 - english)})
    only = mixed(languages={"alpha": 0, "beta": {"ja": 1}})  # none of these: by size
    assert only["text.en"] == pytest.approx(text * 6400 / 6500)
    tokens = {**TOKENS, "text.en+ko": 400}
    with_pairs = shares(tokens, Mixing.model_validate({"languages": {"alpha": 0.5, "beta": {"ko": 1}}}))[0]
    assert with_pairs["text.en+ko"] == pytest.approx(20 / 210)


def test_a_share_that_no_block_can_hold_is_left_out_and_told() -> None:
    found, notes = shares({"a": 10_000_000_000, "b": 100}, Mixing())
    assert found == {"a": 1.0}
    assert notes == ["tokenize: b is left out: its share would be 0.0001, below 1/1024"]


def test_languages_are_told_by_a_streams_name() -> None:
    assert (languages("text.en+ko"), languages("text.en"), languages("protein")) == (["en", "ko"], ["en"], [])


@given(
    st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 1)), min_size=1, max_size=6),
)
@settings(deadline=None, max_examples=100)
def test_caps_hold_and_what_is_cut_goes_to_the_others(drawn: list[tuple[float, float]]) -> None:
    whole = sum(weight for weight, _ in drawn)
    mixture = {str(number): weight / whole for number, (weight, _) in enumerate(drawn)}
    most = {str(number): cap for number, (_, cap) in enumerate(drawn)}
    found = capped(mixture, most=most)
    if found is None:
        assert sum(most.values()) < 1 + 1e-9
        return
    assert sum(found.values()) == pytest.approx(1)
    assert all(share <= most[name] + 1e-9 for name, share in found.items())
    free = [name for name in found if found[name] < most[name] - 1e-9]
    ratios = [found[name] / mixture[name] for name in free]
    assert max(ratios, default=1) == pytest.approx(min(ratios, default=1))


def stretch(samples: int, mixture: dict[str, float], most: float | None = None) -> Stretch:
    return Stretch(name="tokenize", samples=samples, mixture=mixture, max_epochs=most)


def test_no_stream_is_seen_more_often_than_allowed_over_all_phases() -> None:
    tokens = {"large": 1_000_000, "small": 1000}
    half = {"large": 0.5, "small": 0.5}
    free = course([stretch(1000, half)], tokens=tokens, seq_length=10)
    assert free.mixtures == (half,)
    assert free.epochs == pytest.approx({"large": 0.005, "small": 5})
    held = course([stretch(1000, half, 2), stretch(1000, half, 3)], tokens=tokens, seq_length=10)
    assert held.epochs["small"] <= 3
    assert held.epochs["small"] == pytest.approx(3, rel=0.02)
    assert held.mixtures[0]["small"] == pytest.approx(0.2, rel=0.01)
    assert held.mixtures[0]["small"] * 1024 == int(held.mixtures[0]["small"] * 1024)
    assert held.notes[0] == "tokenize.max_epochs: small has 0.1992 of the samples instead of 0.5"
    used_up = course([stretch(1000, half), stretch(1000, half, 2)], tokens=tokens, seq_length=10)
    assert used_up.mixtures[1] == {"large": 1.0}


def test_too_few_tokens_for_the_caps_are_refused() -> None:
    told = (
        r"tokenize.max_epochs: must leave tokens for all 1,000 planned samples, but 2 epochs are 400; raise it, lower"
    )
    with pytest.raises(ValueError, match=told):
        course([stretch(1000, {"a": 1.0}, 2)], tokens={"a": 2000}, seq_length=10)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mixture": {"a": -1}}, "greater than or equal to 0"),
        ({"mixture": {"a": 0}}, "mixture: must have a weight above 0, but has none; add one"),
        ({"mixture": {"a": 1}, "temperature": 2}, "temperature: must be left out where mixture gives the weights"),
        (
            {"mixture": {"a": 1}, "languages": {"alpha": 1, "beta": {"ko": 1}}},
            "languages: must be left out where mixture gives the weights, but is given; choose one",
        ),
        ({"temperature": 0}, "greater than 0"),
        ({"languages": {"alpha": 0.5, "beta": {"ko": 0}}}, "beta: must have a weight above 0, but has none; add one"),
        ({"languages": {"alpha": 2, "beta": {"ko": 1}}}, "less than or equal to 1"),
        ({"max_epoch": 2}, "Extra inputs are not permitted"),
    ],
)
def test_bad_settings_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Mixing.model_validate(given)


def test_names_that_are_no_streams_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^tokenize.mixture: must name streams of .*text.ko, but has c, none; change"):
        mixed(mixture={"c": 1, "none": 1})
    with pytest.raises(ValueError, match=r"^tokenize.upsample: must name one of en, ko, protein, text, .* but has ja;"):
        mixed(upsample={"ja": 2})
    section = Mixing.model_validate({"mixture": {"genes": 1}, "upsample": {"ko": 2, "genes": 2, "text.en": 2}})
    assert list(section.misnamed(("protein", "text"))) == [
        "mixture.genes: must be a modality of protein, text, with .en or so for text, but is not; change it",
        "upsample.genes: must be a stream, a language or a modality of protein, text, but is not; change it",
    ]
