"""How well does a molecule dissolve in water? One of three classes, measured in the laboratory.

Reads molecule.valid; scored by the plain log-probability of the class. An item:

    prompt    <|molecule|><|mol:C|><|mol:C|><|mol:O|><|/molecule|> solubility:
    choices   high<|eod|>, low<|eod|>, medium<|eod|>
    answer    high
"""

from evaluation.heldout import Records, annotated_items
from evaluation.items import Item

QUESTION = "Is this molecule's solubility in water low, medium or high?"
MODALITY = "molecule"
BASELINE = "the most common class of the train split"
NORMALIZED = False


def items(records: Records, /) -> list[Item]:
    """Returns an item for every held-out molecule with a solubility class."""
    return annotated_items(records, stream="molecule", field="properties", name="solubility")
