"""From unlabelled texts and a label schema to labelled rows, by a teacher one can only talk to."""

from understudy.data.labelling.answers import (
    Failure,
    Row,
    Unreadable,
    label_of,
    voted,
    weighed,
)
from understudy.data.labelling.asking import Asking, Labelled, Spent, ask, soft_way
from understudy.data.labelling.cascade import Step, cascade
from understudy.data.labelling.gold import read_sheet, stratified, write_sheet
from understudy.data.labelling.planning import TRIED, Estimate, Plan, Prices, check_prices, plan
from understudy.data.labelling.schema import answer_schema, read_labels
from understudy.data.labelling.texts import Divided, distinct, divide, rounds

__all__ = [
    "TRIED", "Asking", "Divided", "Estimate", "Failure", "Labelled", "Plan", "Prices", "Row",
    "Spent", "Step", "Unreadable",
    "answer_schema", "ask", "cascade", "check_prices", "distinct", "divide", "label_of", "plan",
    "read_labels", "read_sheet", "rounds", "soft_way", "stratified", "voted", "weighed",
    "write_sheet",
]  # fmt: skip
