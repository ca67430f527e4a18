"""Log-likelihoods of answer choices under an exported model, in one process.

Every choice of a question shares its prompt, so the prompt is computed once: a row holds the prompt and, after it, all
choices as branches of a tree; a mask lets a branch see the prompt and itself, never another branch, and every branch
counts its positions from the prompt's end. Rows of a batch are aligned at the prompt's end, so that one slice of
columns holds every logit that is needed, and only those are computed.

    row 0   .  p0 p1 p2 | a0 a1 b0 .        p prompt, a and b the inputs of two choices, . padding
    row 1   p0 p1 p2 p3 | a0 b0 b1 b2

Shapes: B rows, S columns, K kept columns, V vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from parallelism import device
from parallelism.question import Question, Scored

PROMPT, PADDING = 0, -1  # branch numbers; choice k is branch k + 1
BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}  # columns x rows; more is slower on a CPU, whose cache it leaves


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A loaded model and its tokenizer."""

    model: Any
    tokenizer: Any


@dataclass(frozen=True, kw_only=True)
class _Encoded:
    index: int
    prompt: list[int]
    choices: list[list[int]]
    truncated: bool

    @property
    def tail(self) -> int:
        """Returns the columns after the prompt; a choice's last token is only predicted, never an input."""
        return sum(len(choice) - 1 for choice in self.choices)

    @property
    def columns(self) -> int:
        return len(self.prompt) + self.tail


def load(folder: Path) -> Scorer:
    """Loads an exported model for scoring: safetensors only, no code from the folder, no network.

    Work is spread over processes, so this process is held to one thread; a second thread would wait for a core.

    Raises:
        FileNotFoundError: the folder is not an exported model.
    """
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder}: must be an exported model, but holds no {name}; run the export stage first"
            )
    torch.set_num_threads(1)
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, dtype="auto", attn_implementation="sdpa"
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return Scorer(model=model.to(device.current()).eval(), tokenizer=tokenizer)


def score(scorer: Scorer, questions: Sequence[Question]) -> list[Scored]:
    """Returns the log-probabilities of every choice of every question, in the order of `questions`.

    The batches, and with them the last bits of the result, depend on nothing but the list of questions.

    Raises:
        ValueError: a prompt or a choice has no tokens of its own, or a choice is longer than the model's context.
    """
    limit = scorer.model.config.max_position_embeddings
    encoded = [
        _encode(question, index=index, tokenizer=scorer.tokenizer, limit=limit)
        for index, question in enumerate(questions)
    ]
    scored: dict[int, Scored] = {}
    for batch in _batches(encoded, budget=BATCH_TOKENS[scorer.model.device.type]):
        for row, logprobs in zip(batch, _score_batch(scorer, batch), strict=True):
            scored[row.index] = Scored(logprobs=logprobs, truncated=row.truncated)
    return [scored[index] for index in range(len(questions))]


def _encode(question: Question, *, index: int, tokenizer: Any, limit: int) -> _Encoded:
    """Encodes prompt and choice together and cuts at the prompt's length, as lm-evaluation-harness does."""
    prompt = tokenizer.encode(question.prompt, add_special_tokens=False)
    choices = []
    for choice in question.choices:
        whole = tokenizer.encode(question.prompt + choice, add_special_tokens=False)
        choices.append(whole[len(prompt) :])
        if not prompt or not choices[-1]:
            raise ValueError(
                f"prompt and choice must each have a token of their own, but {question.prompt[-40:]!r} + {choice!r} "
                f"encodes to {len(prompt)} + {len(choices[-1])}; end the prompt where a token ends"
            )
    room = limit - max(len(choice) for choice in choices) + 1
    if room < 1:
        raise ValueError(
            f"a choice must fit the model's context of {limit} tokens, but one has {limit - room + 1}; shorten it: "
            f"{question.prompt[-40:]!r}"
        )
    return _Encoded(index=index, prompt=prompt[-room:], choices=choices, truncated=len(prompt) > room)


def _batches(encoded: Sequence[_Encoded], *, budget: int) -> Iterator[list[_Encoded]]:
    """Yields rows of like length together, as many as fit the budget of columns x rows, at least one."""
    batch: list[_Encoded] = []
    for row in sorted(encoded, key=lambda row: (row.columns, row.index)):
        if batch and (len(batch) + 1) * _columns([*batch, row]) > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _columns(batch: Sequence[_Encoded]) -> int:
    return max(len(row.prompt) for row in batch) + max(row.tail for row in batch)


@torch.inference_mode()
def _score_batch(scorer: Scorer, batch: Sequence[_Encoded]) -> list[tuple[float, ...]]:
    prompt_columns = max(len(row.prompt) for row in batch)
    columns = _columns(batch)
    laid_out = [_lay_out(row, prompt_columns=prompt_columns, columns=columns) for row in batch]
    tokens_BS, branches_BS, positions_BS = (
        torch.tensor(rows, device=scorer.model.device) for rows in zip(*laid_out, strict=True)
    )
    logits_BKV = scorer.model(
        input_ids=tokens_BS,
        attention_mask=_tree_mask(branches_BS),
        position_ids=positions_BS,
        use_cache=False,
        logits_to_keep=columns - prompt_columns + 1,
    ).logits
    logprobs_BKV = torch.log_softmax(logits_BKV.float(), dim=-1)
    return [_sum_choices(logprobs_KV, row) for logprobs_KV, row in zip(logprobs_BKV, batch, strict=True)]


def _lay_out(row: _Encoded, *, prompt_columns: int, columns: int) -> tuple[list[int], list[int], list[int]]:
    """Returns tokens, branches and positions of one row, each of length `columns`; padding repeats token 0."""
    before = prompt_columns - len(row.prompt)
    after = columns - prompt_columns - row.tail
    tokens, branches = list(row.prompt), [PROMPT] * len(row.prompt)
    positions = list(range(len(row.prompt)))
    for branch, choice in enumerate(row.choices, start=1):
        tokens += choice[:-1]
        branches += [branch] * (len(choice) - 1)
        positions += range(len(row.prompt), len(row.prompt) + len(choice) - 1)
    return (
        [0] * before + tokens + [0] * after,
        [PADDING] * before + branches + [PADDING] * after,
        [0] * before + positions + [0] * after,
    )


def _tree_mask(branches_BS: Tensor) -> Tensor:
    """Returns the mask, bool (B, 1, S, S): True where the row's column may see the other column.

    A column sees itself and what is before it in its own branch or in the prompt. Padding sees padding, so that no
    softmax is over nothing.
    """
    columns = branches_BS.shape[1]
    causal_SS = torch.ones(columns, columns, dtype=torch.bool, device=branches_BS.device).tril()
    seen_BSS = (branches_BS[:, None, :] == PROMPT) | (branches_BS[:, None, :] == branches_BS[:, :, None])
    return (seen_BSS & causal_SS)[:, None]


def _sum_choices(logprobs_KV: Tensor, row: _Encoded) -> tuple[float, ...]:
    """Sums each choice's tokens; kept column 0 is the prompt's last, which predicts every choice's first token."""
    columns: list[int] = []
    targets: list[int] = []
    start = 1
    for choice in row.choices:
        columns += [0, *range(start, start + len(choice) - 1)]
        targets += choice
        start += len(choice) - 1
    values = iter(logprobs_KV[columns, targets].tolist())
    return tuple(math.fsum(next(values) for _ in choice) for choice in row.choices)
