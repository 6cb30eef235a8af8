"""What is studied: sources of samples, their order, their views."""

from understudy.data.chat import Reading, texts_of
from understudy.data.loader import Indexed, Loader, Opaque, loader_state
from understudy.data.own_template import OwnTemplate
from understudy.data.sampling import Order
from understudy.data.sources import (
    Arrays,
    Joined,
    Mapped,
    Source,
    Subset,
    as_source,
    check_labels,
    fingerprint,
)
from understudy.data.texts import Texts
from understudy.data.views import View, ViewFunction, uniform

__all__ = [
    "Arrays",
    "Indexed",
    "Joined",
    "Loader",
    "Mapped",
    "Opaque",
    "Order",
    "OwnTemplate",
    "Reading",
    "Source",
    "Subset",
    "Texts",
    "View",
    "ViewFunction",
    "as_source",
    "check_labels",
    "fingerprint",
    "loader_state",
    "texts_of",
    "uniform",
]
