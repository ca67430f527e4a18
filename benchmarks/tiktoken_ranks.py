"""A tokenizer given as tiktoken ranks (o200k_base.tiktoken, qwen.tiktoken) as the tokenizer.json that tokenize loads.

python benchmarks/tiktoken_ranks.py o200k_base.tiktoken --words gpt-4o --out /tmp/o200k
"""

import argparse
import base64
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from corpus import encoder

WORDS = {"gpt-4o": encoder.CASED, "llama-3": encoder.LLAMA3, "qwen-2": encoder.QWEN2}


def convert(ranks: Path, *, words: str, end: str = "<|endoftext|>") -> Tokenizer:
    """Returns a byte-level BPE with these ranks: every way to split a token in two others is a merge of its rank."""
    pairs = (line.split() for line in ranks.read_text().splitlines() if line.strip())
    tokens = {base64.b64decode(token): int(rank) for token, rank in pairs}
    found = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    to_text = {byte: char for char, byte in encoder.byte_of_character().items()}
    text = {token: "".join(map(to_text.__getitem__, token)) for token in tokens}
    merges = [
        (text[left], text[right])
        for token in sorted(tokens, key=tokens.__getitem__)
        for left, right in sorted(_halves(token, tokens), key=lambda pair: (tokens[pair[0]], tokens[pair[1]]))
    ]
    made = Tokenizer(models.BPE({text[token]: rank for token, rank in tokens.items()}, merges, ignore_merges=True))
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(WORDS[words]), "isolated"), found])
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(end, normalized=False, special=True)])
    return made


def _halves(token: bytes, tokens: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    cuts = ((token[:place], token[place:]) for place in range(1, len(token)))
    return [(left, right) for left, right in cuts if left in tokens and right in tokens]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ranks", type=Path)
    parser.add_argument("--words", choices=WORDS, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    convert(given.ranks, words=given.words).save(str(given.out / "tokenizer.json"))
