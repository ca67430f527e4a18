"""What a person may set of the gates: the section `prepare.gates`; planning imports it, so it imports nothing heavy."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Action = Literal["quarantine", "count", "off"]
Kind = Literal[
    "resident_number",
    "foreigner_number",
    "passport",
    "driving_licence",
    "business_number",
    "phone_kr",
    "phone_us",
    "phone_other",
    "ssn",
    "card",
    "record_number",
    "email",
    "name",
    "titled_name",
    "birth_date",
]
Rule = Literal[
    "too_short",
    "too_long",
    "mojibake",
    "no_words",
    "word_length",
    "symbols",
    "repeated_lines",
    "repeated_phrases",
    "boilerplate",
    "language",
]

ACTIONS: dict[Kind, Action] = {
    "resident_number": "quarantine",
    "foreigner_number": "quarantine",
    "passport": "quarantine",
    "driving_licence": "quarantine",
    "business_number": "count",
    "phone_kr": "quarantine",
    "phone_us": "quarantine",
    "phone_other": "quarantine",
    "ssn": "quarantine",
    "card": "quarantine",
    "record_number": "quarantine",
    "email": "quarantine",
    "name": "quarantine",
    "titled_name": "count",
    "birth_date": "count",
}


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LicencePolicy(_Section):
    """What a source's licence must allow. Everything that is not known to be allowed is refused.

    Attributes:
        commercial: whether commercial use must be allowed.
        derivatives: whether derived works must be allowed; a model and its shards are taken for one.
        share_alike: whether licences that bind the result are taken: true, or the identifiers of those that are.
        agreements: names of the data-use agreements that were signed, as the licence table or `terms:` call them.
        notice_days: a right that ends within so many days is told.
    """

    commercial: bool = True
    derivatives: bool = True
    share_alike: bool | tuple[str, ...] = False
    agreements: tuple[str, ...] = ()
    notice_days: Annotated[int, Field(ge=0)] = 90


class PersonalConfig(_Section):
    """What becomes of a record that holds personal data.

    Attributes:
        actions: by kind, in place of the defaults: quarantine the record, keep and count it, or do not look.
        sources: by source's name: one action for all kinds, or an action by kind.
        skip: modalities that are not looked into, because they hold no text of people.
    """

    actions: dict[Kind, Action] = {}
    sources: dict[str, Action | dict[Kind, Action]] = {}
    skip: tuple[str, ...] = ("molecule", "protein", "omics")

    def actions_for(self, source: str) -> dict[Kind, Action]:
        """Returns what to do with each kind in a source."""
        own = self.sources.get(source, {})
        general = {**ACTIONS, **self.actions}
        return dict.fromkeys(general, own) if isinstance(own, str) else {**general, **own}


class DuplicatesConfig(_Section):
    """Which records are one too many; exact duplicates always are.

    Attributes:
        near: whether nearly equal texts count as duplicates.
        modalities: those whose texts are compared; recommendations, labels and patients differ in a word that matters.
        threshold: Jaccard similarity of two texts' shingles, estimated, from which the later one goes.
        num_perm: permutations in a signature, of 4 bytes each.
        bands: of a signature; texts that share a band are compared.
        shingle: words, or letters of Korean, Chinese and Japanese, in a shingle.
        min_units: texts with fewer words or letters are not compared: one word is their meaning.
    """

    near: bool = True
    modalities: tuple[str, ...] = ("text", "literature")
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    num_perm: Annotated[int, Field(ge=16, le=512)] = 128
    bands: Annotated[int, Field(ge=1, le=128)] = 16
    shingle: Annotated[int, Field(ge=1, le=32)] = 5
    min_units: Annotated[int, Field(ge=1)] = 50

    @model_validator(mode="after")
    def _divides(self) -> "DuplicatesConfig":
        if self.num_perm % self.bands:
            raise ValueError(f"bands: must divide num_perm = {self.num_perm}, but is {self.bands}; change one of them")
        return self

    def compares(self, modality: str) -> bool:
        """Says whether records of a modality are compared for near duplicates."""
        return self.near and modality in self.modalities


class Benchmark(_Section):
    """An evaluation set whose items may not be learned. Read by a modality, or as a table.

    Attributes:
        name: what reports call it.
        path: as of a source; may hold ${VARIABLE}.
        modality: reads the file as a source of this modality, with `options`; ids are those of its records.
        columns: of a table: the texts of an item, such as question and context; each is checked by itself.
        ids: of a table: kind of id -> column, such as {pmid: PMID}; {pmid: key} for the keys of a JSON object.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    path: Annotated[str, Field(min_length=1)]
    modality: str | None = None
    options: dict[str, Any] = {}
    columns: tuple[str, ...] = ()
    ids: dict[str, str] = {}

    @model_validator(mode="after")
    def _is_readable(self) -> "Benchmark":
        if bool(self.modality) == bool(self.columns or self.ids):
            raise ValueError("must be read by modality: or as a table by columns: or ids:, one of them; change it")
        return self

    def locate(self, root: Path) -> Path:
        """Returns where the file is."""
        from os.path import expandvars

        return root / expandvars(self.path)


class ContaminationConfig(_Section):
    """What counts as having seen an evaluation set.

    Attributes:
        benchmarks: the evaluation sets.
        words: a run of so many words in common, punctuation and case aside, is one too many.
        letters: the same for Korean, Chinese and Japanese, without blanks.
        min_words: an item shorter than `words` is found whole, from this length on; shorter ones cannot be checked.
        min_letters: likewise.
        template_items: a run that stands in so many items of a benchmark is its form and not its content.
    """

    benchmarks: tuple[Benchmark, ...] = ()
    words: Annotated[int, Field(ge=4, le=64)] = 13
    letters: Annotated[int, Field(ge=8, le=128)] = 30
    min_words: Annotated[int, Field(ge=3)] = 8
    min_letters: Annotated[int, Field(ge=6)] = 18
    template_items: Annotated[int, Field(ge=2)] = 10


class QualityConfig(_Section):
    """Which texts are not worth learning.

    Attributes:
        modalities: those whose texts are judged; structured ones are not.
        off: rules that are not used.
        sources: by source's name: rules that are not used for it.
        min_letters: fewer are too short; a letter of Korean, Chinese or Japanese counts twice.
        max_letters: more are too long; the readers refuse giants before.
        stated_from: words from which a text is judged by its statistics.
    """

    modalities: tuple[str, ...] = ("text", "literature", "guideline")
    off: tuple[Rule, ...] = ()
    sources: dict[str, tuple[Rule, ...]] = {}
    min_letters: Annotated[int, Field(ge=1)] = 2
    max_letters: Annotated[int, Field(ge=100)] = 5_000_000
    stated_from: Annotated[int, Field(ge=10)] = 50


class GatesConfig(_Section):
    """The section `prepare.gates`."""

    licences: LicencePolicy = LicencePolicy()
    personal: PersonalConfig = PersonalConfig()
    duplicates: DuplicatesConfig = DuplicatesConfig()
    contamination: ContaminationConfig = ContaminationConfig()
    quality: QualityConfig = QualityConfig()

    def problems(self, root: Path, *, sources: Iterable[str]) -> Iterator[str]:
        """Yields benchmarks that are not there and settings for sources that do not exist, one line each."""
        for number, benchmark in enumerate(self.contamination.benchmarks):
            found = benchmark.locate(root)
            if not found.is_file():
                place = f"contamination.benchmarks.{number}.path"
                yield f"{place}: must be a file, but {found} is not there; fetch it or mend the path"
        known = set(sources)
        for section, names in (("personal", self.personal.sources), ("quality", self.quality.sources)):
            for name in sorted(set(names) - known):
                yield f"{section}.sources.{name}: must be the name of a source, but none has it; mend it"

    def files(self, root: Path) -> list[Path]:
        """Returns the files that the gates read; when one changes, the stage runs again."""
        return [benchmark.locate(root) for benchmark in self.contamination.benchmarks]
