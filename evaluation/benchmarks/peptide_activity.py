"""Does a peptide kill microbes? Antimicrobial peptides against as many peptides of other proteins.

Reads protein.valid; scored by the plain log-probability of the class. An item:

    prompt    <|protein|><|aa:G|><|aa:L|><|aa:W|><|aa:S|> ... <|aa:V|><|/protein|> antimicrobial:
    choices   no<|eod|>, yes<|eod|>
    answer    yes
"""

from evaluation.heldout import Records, annotated_items
from evaluation.items import Item

QUESTION = "Is this peptide antimicrobial?"
MODALITY = "protein"
BASELINE = "the most common class of the train split"
NORMALIZED = False


def items(records: Records, /) -> list[Item]:
    """Returns an item for every held-out peptide of known activity."""
    return annotated_items(records, stream="protein", field="properties", name="antimicrobial")
