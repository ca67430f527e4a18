"""What a scorer is asked and what it answers; without torch, so that the process that asks need not load it."""

from dataclasses import dataclass

SCORER_VERSION = 1
"""Raise it when scoring changes, so that an evaluation takes no score from a journal of the old way."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A prompt and the strings that may follow it."""

    prompt: str
    choices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What the model gives each choice: ln P(choice | prompt), summed over the choice's tokens, in nats.

    `truncated` says that the prompt lost tokens at its start because it was longer than the model's context.
    """

    logprobs: tuple[float, ...]
    truncated: bool
