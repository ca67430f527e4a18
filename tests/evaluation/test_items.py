"""Items: what is refused, and what must not depend on the machine or the order."""

import pytest

from evaluation.items import POOL, Item, best, distractors, make_item, select, with_distractors


def item(prompt: str, *, choices: tuple[str, ...] = (" yes", " no"), answer: int = 0) -> Item:
    return make_item(group="g", stream="trial", prompt=prompt, choices=choices, answer=answer, guess=None)


def test_the_id_is_that_of_the_content() -> None:
    assert item("died:").id == item("died:").id
    assert len({item("died:").id, item("died:", answer=1).id, item("lived:").id}) == 3


@pytest.mark.parametrize(
    ("choices", "answer"),
    [((" yes",), 0), ((" yes", " yes"), 0), ((" yes", " no"), 2)],
    ids=["one", "equal", "outside"],
)
def test_refuses_choices_that_are_no_choice(choices: tuple[str, ...], answer: int) -> None:
    with pytest.raises(ValueError, match="at least 2 different choices and an answer among them"):
        item("died:", choices=choices, answer=answer)


@pytest.mark.parametrize("prompt", ["", "died: ", "died:\n"], ids=["empty", "space", "newline"])
def test_refuses_a_prompt_that_ends_in_a_space(prompt: str) -> None:
    with pytest.raises(ValueError, match="must not end in a space"):
        item(prompt)


def test_the_baselines_score() -> None:
    asked = item("died:")
    assert asked.baseline == 0.5
    guessed = make_item(group="g", stream="trial", prompt="died:", choices=(" yes", " no"), answer=1, guess=1)
    assert guessed.baseline == 1


def test_distractors_depend_on_the_seed_and_the_texts_only() -> None:
    texts = [f"sentence {number}" for number in range(20)]
    others = distractors(texts, seed=1)
    choices, answer = with_distractors("right", others, without=set(), count=3, seed=1)
    assert choices[answer] == "right"
    assert len(set(choices)) == 4
    more = distractors([*reversed(texts), "right", "own"], seed=1)
    assert with_distractors("right", more, without={"own"}, count=3, seed=1) == (choices, answer)
    indices = {with_distractors("right", others, without=set(), count=3, seed=seed)[1] for seed in range(30)}
    assert indices == {0, 1, 2, 3}


def test_wrong_choices_are_drawn_from_a_bounded_pool() -> None:
    texts = [f"{number}" for number in range(3 * POOL)]
    pool = distractors(texts, seed=1)
    assert len(set(pool)) == POOL
    assert pool == distractors(texts[::-1], seed=1) == sorted(pool)
    assert pool != distractors(texts, seed=2)


def test_says_how_to_get_more_distractors() -> None:
    with pytest.raises(ValueError, match=r"offer 1; raise prepare\.valid_fraction or add documents"):
        with_distractors("right", ["own", "right", "wrong"], without={"own"}, count=3, seed=0)


def test_selects_each_item_once_in_an_order_that_new_items_do_not_change() -> None:
    items = [item(f"{number}:") for number in range(50)]
    chosen = select(items * 2, most=20)
    assert len({each.id for each in chosen}) == 20
    assert select(items[::-1], most=20) == chosen
    more = select([*items, item("new:")], most=20)
    assert len(set(more) & set(chosen)) >= 19


def test_the_first_of_equals_is_best() -> None:
    assert best(["aa", "b", "cc"], len) == 0
