"""Scores of the tree of choices against plain forward passes, one choice at a time."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from parallelism import scoring
from parallelism.question import Question

CONTEXT = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama with random weights and a byte-level tokenizer: every byte is a token."""
    folder = tmp_path_factory.mktemp("model")
    alphabet = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("a", "b"), ("ab", "c")]
    vocabulary = {**alphabet, "ab": 256, "abc": 257}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def scorer(folder: Path) -> Iterator[scoring.Scorer]:
    threads = torch.get_num_threads()
    yield scoring.load(folder)
    torch.set_num_threads(threads)


def plain_logprob(scorer: scoring.Scorer, prompt: str, choice: str) -> float:
    """The textbook way: one unpadded forward pass over prompt and choice."""
    start = len(scorer.tokenizer.encode(prompt, add_special_tokens=False))
    whole = torch.tensor([scorer.tokenizer.encode(prompt + choice, add_special_tokens=False)])
    with torch.inference_mode():
        logprobs = torch.log_softmax(scorer.model(whole).logits[0], dim=-1)
    return sum(float(logprobs[at - 1, whole[0, at]]) for at in range(start, whole.shape[1]))


def random_questions(count: int) -> list[Question]:
    generator = random.Random(1)

    def text(longest: int) -> str:
        return "".join(generator.choices("abc de효과", k=generator.randint(1, longest)))

    return [
        Question(prompt=text(25) + "x", choices=tuple("y" + text(6) for _ in range(generator.randint(2, 5))))
        for _ in range(count)
    ]


def test_the_tree_equals_one_plain_pass_per_choice(scorer: scoring.Scorer) -> None:
    questions = random_questions(40)
    for question, scored in zip(questions, scoring.score(scorer, questions), strict=True):
        expected = [plain_logprob(scorer, question.prompt, choice) for choice in question.choices]
        assert scored.logprobs == pytest.approx(expected, abs=2e-4)
        assert not scored.truncated


def test_the_order_of_the_choices_does_not_matter(scorer: scoring.Scorer) -> None:
    alphabet = tuple(chr(code) for code in range(33, 127))
    (scored,) = scoring.score(scorer, [Question(prompt="aspirin", choices=alphabet)])
    (same,) = scoring.score(scorer, [Question(prompt="aspirin", choices=alphabet[::-1])])
    assert scored.logprobs == same.logprobs[::-1]
    assert sum(torch.tensor(scored.logprobs).exp()) < 1


def test_the_same_list_gives_the_same_bits(scorer: scoring.Scorer) -> None:
    questions = random_questions(30)
    assert scoring.score(scorer, questions) == scoring.score(scorer, questions)


def test_tokens_are_cut_at_the_prompts_length(scorer: scoring.Scorer) -> None:
    """'ab' + 'c' encodes to the one token 'abc': nothing is left for the choice, and that is an error, not a 0."""
    with pytest.raises(ValueError, match=r"'ab' \+ 'c' encodes to 1 \+ 0; end the prompt where a token ends"):
        scoring.score(scorer, [Question(prompt="ab", choices=("c", "d"))])


def test_a_prompt_longer_than_the_context_loses_its_start(scorer: scoring.Scorer) -> None:
    prompt = "d" * 200 + "e" * (CONTEXT - 2)
    choices = ("xyz", "zyx")
    (scored,) = scoring.score(scorer, [Question(prompt=prompt, choices=choices)])
    assert scored.truncated
    kept = prompt[-(CONTEXT - 3 + 1) :]
    assert scored.logprobs == pytest.approx([plain_logprob(scorer, kept, choice) for choice in choices], abs=2e-4)


def test_refuses_a_choice_longer_than_the_context(scorer: scoring.Scorer) -> None:
    with pytest.raises(ValueError, match=f"context of {CONTEXT} tokens, but one has {CONTEXT + 1}; shorten it"):
        scoring.score(scorer, [Question(prompt="d", choices=("d" * (CONTEXT + 1), "e"))])


def test_refuses_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json; run the export stage first"):
        scoring.load(tmp_path)


def test_weights_come_from_safetensors_only(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save(LlamaForCausalLM.from_pretrained(folder).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        scoring.load(tmp_path)
