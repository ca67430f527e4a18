"""Sequences of proteins, DNA and RNA: their letters, cleaned and checked, and written with one symbol per letter."""

import re
from typing import Literal

from corpus.modality import UnusableError
from corpus.symbols import inside, names, symbol, tags

Alphabet = Literal["protein", "dna", "rna"]
_RESIDUES = "ACDEFGHIKLMNPQRSTVWYBZXUOJ*"
_BASES = "RYSWKMBDHVN"  # what IUPAC writes for more than one base
LETTERS: dict[Alphabet, str] = {"protein": _RESIDUES, "dna": f"ACGT{_BASES}", "rna": f"ACGU{_BASES}"}
_MOST: dict[Alphabet, int] = {"protein": 40_000, "dna": 1_000_000, "rna": 1_000_000}  # titin has about 35,000
_KINDS: dict[Alphabet, str] = {"protein": "aa", "dna": "nt", "rna": "nt"}
_WORDS: dict[Alphabet, str] = {"protein": "amino acids", "dna": "bases of DNA", "rna": "bases of RNA"}
_OTHER = {alphabet: re.compile(f"[^{re.escape(letters)}]") for alphabet, letters in LETTERS.items()}
_TO_SYMBOL = {
    alphabet: {letter: symbol(_KINDS[alphabet], letter) for letter in letters} for alphabet, letters in LETTERS.items()
}
_GAPS = re.compile(r"[-.\s]")
_NUCLEOTIDES = re.compile(r"[ACGTUN]{30,}")
_FOLDS = re.compile(r"(?!(.)\1*$)[CEH]{30,}")
SYMBOLS = (
    *tags("protein"),
    *_TO_SYMBOL["protein"].values(),
    *tags("dna"),
    *tags("rna"),
    *dict.fromkeys([*_TO_SYMBOL["dna"].values(), *_TO_SYMBOL["rna"].values()]),
)


def clean_sequence(given: str, *, alphabet: Alphabet = "protein") -> str:
    """Returns a sequence in upper case without gaps: lower case in a2m and a3m are residues too, . and - are none.

    Raises:
        UnusableError: it is empty, too long, holds other letters, or is DNA, RNA or a secondary structure where a
            protein should be.
    """
    sequence = _GAPS.sub("", given).upper()
    if not sequence:
        raise UnusableError("empty", f"must hold {_WORDS[alphabet]}, but is empty")
    if len(sequence) > _MOST[alphabet]:
        raise UnusableError("too_large", f"must have at most {_MOST[alphabet]} residues, but has {len(sequence)}")
    other = _OTHER[alphabet].search(sequence)
    if other:
        place = f"{other.group()!a} at {other.start() + 1}"
        raise UnusableError("unknown_residue", f"must hold only {LETTERS[alphabet]}, but has {place}")
    if alphabet == "protein" and _NUCLEOTIDES.fullmatch(sequence):
        told = "must be amino acids, but holds only nucleotides; set alphabet: dna or rna where it is one"
        raise UnusableError("nucleotides", told)
    if alphabet == "protein" and _FOLDS.fullmatch(sequence):
        told = "must be amino acids, but holds only H, E and C: its secondary structure; read the file with residues"
        raise UnusableError("secondary_structure", told)
    return sequence


def write(sequence: str, *, alphabet: Alphabet) -> str:
    """Writes <|protein|>, <|dna|> or <|rna|>, a symbol per letter, and the closing tag."""
    opening, closing = tags(alphabet)
    symbols = _TO_SYMBOL[alphabet]
    return f"{opening}{''.join(symbols[letter] for letter in sequence)}{closing}"


def read(rendered: str) -> tuple[str, Alphabet, str]:
    """Returns the sequence that `write` wrote, its alphabet, and what follows.

    Raises:
        ValueError: the tags are not there.
    """
    found = (name for name in LETTERS if rendered.startswith(tags(name)[0]))
    alphabet: Alphabet = next(found, "protein")
    body, rest = inside(rendered, alphabet)
    return "".join(names(body)), alphabet, rest
