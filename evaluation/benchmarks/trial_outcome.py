"""Did the event of a clinical trial happen to this participant, given what was known at the start?

Asks for every outcome that is yes or no throughout; the baseline is the more common answer for that outcome.

Reads trial.valid; scored by the plain log-probability of the answer. An item:

    prompt    <|trial|> study: NCCTG, lung cancer
              age: 74
              sex: male
              ECOG: 1<|/trial|> death:
    choices   no<|eod|>, yes<|eod|>
    answer    yes
"""

from evaluation.heldout import Records, annotated_items
from evaluation.items import Item

QUESTION = "Did the trial's event happen to this participant?"
MODALITY = "trial"
BASELINE = "the more common answer of the train split, for each outcome"
NORMALIZED = False


def items(records: Records, /) -> list[Item]:
    """Returns an item for every held-out participant and yes-or-no outcome."""
    values: dict[str, set[str]] = {}
    for outcome in records.train("trial", lambda record: record["content"]["outcome"] or None):
        for name, value in outcome.items():
            values.setdefault(name, set()).add(value)
    asked = sorted(name for name, found in values.items() if found == {"yes", "no"})
    return [item for name in asked for item in annotated_items(records, stream="trial", field="outcome", name=name)]
