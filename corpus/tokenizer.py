"""The tokenizer: one byte-level BPE for text and one id per symbol, in the format that transformers loads."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from corpus.symbols import END, PAD
from slurm.files import sha256_file, write_atomic

WORDS = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # GPT-2's words, but every digit by itself
_BYTES = 256
_FILES = ("tokenizer.json", "tokenizer_config.json")


def train(texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """Returns a byte-level BPE of at most `vocab_size` ids, trained on texts without symbols; deterministic.

    Every byte has an id, so that no text is unknown (Sennrich et al. 2016; Radford et al. 2019).
    """
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(WORDS), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def files(path: Path) -> list[Path]:
    """Returns what `load` reads, as far as it is there."""
    found = [path / name for name in ("tokenizer.json", "vocab.json", "merges.txt")] if path.is_dir() else [path]
    return [file for file in found if file.is_file()]


def load(path: Path) -> Tokenizer:
    """Returns a trained tokenizer: a tokenizer.json, or a folder with one or with vocab.json and merges.txt.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        if not file.is_file() and (path / "merges.txt").is_file():
            return _byte_level(models.BPE.from_file(str(path / "vocab.json"), str(path / "merges.txt")))
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more exact
        told = f"must be a tokenizer.json or a folder with vocab.json and merges.txt, but {error}; mend the path"
        raise ValueError(f"tokenizer {path}: {told}") from error


def room_for_text(symbols: Sequence[str], *, vocab_size: int) -> int:
    """Returns how many ids are left for text: all but the symbols, end and padding.

    Raises:
        ValueError: fewer than the 256 bytes are left.
    """
    room = vocab_size - len(symbols) - 2
    if room < _BYTES:
        least = _BYTES + len(symbols) + 2
        holds = f"256 bytes, {len(symbols)} symbols, end and padding"
        raise ValueError(f"tokenize.vocab_size: must be at least {least} ({holds}), but is {vocab_size}; raise it")
    return room


def add_symbols(tokenizer: Tokenizer, symbols: Sequence[str], *, vocab_size: int | None) -> Tokenizer:
    """Returns the tokenizer with ids for end, padding and symbols after those of text, and exactly `vocab_size` ids.

    Ids that nothing needs are reserved, so that the model's size is known before the data is. Without a
    `vocab_size` the next multiple of 128 is taken.

    Raises:
        ValueError: there are more than `vocab_size` ids.
    """
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in (END, PAD)])
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in symbols])
    used = tokenizer.get_vocab_size()
    wanted = vocab_size or -(-used // 128) * 128
    if used > wanted:
        raise ValueError(f"tokenize.vocab_size: must be at least {used}, but is {wanted}; raise it or leave it out")
    reserved = [AddedToken(f"<|reserved:{number}|>", normalized=False) for number in range(used, wanted)]
    tokenizer.add_tokens(reserved)
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> str:
    """Writes tokenizer.json and tokenizer_config.json; returns the digest of the first."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1 << 30,
    }
    write_atomic(folder / _FILES[0], tokenizer.to_str(pretty=True))
    write_atomic(folder / _FILES[1], json.dumps(config, indent=2) + "\n")
    return sha256_file(folder / _FILES[0])


def _byte_level(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
