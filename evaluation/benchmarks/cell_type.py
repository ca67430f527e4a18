"""Which type is a blood cell? All types that the train split has are choices.

All, not a few drawn ones: a laboratory does not know three wrong types beforehand, and the most common type is a fair
baseline only where it can always be chosen. The prompt is computed once for all choices, so many choices cost little.

Reads omics.valid; scored by the plain log-probability of the type. An item:

    prompt    <|cell|><|gene:HLA-DRA|><|gene:CD74|><|gene:HLA-DPB1|> ... <|/cell|> cell type:
    choices   CD14+ Monocyte<|eod|>, CD19+ B<|eod|>, ... Dendritic<|eod|>
    answer    Dendritic
"""

from evaluation.heldout import Records, annotated_items
from evaluation.items import Item

QUESTION = "Which type is the cell whose most expressed genes are these?"
MODALITY = "omics"
BASELINE = "the most common type of the train split"
NORMALIZED = False


def items(records: Records, /) -> list[Item]:
    """Returns an item for every held-out cell with a type."""
    return annotated_items(records, stream="omics", field="properties", name="cell type")
