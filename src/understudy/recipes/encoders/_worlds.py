"""Settings of methods that need another world than one teacher and one student."""

from dataclasses import replace
from functools import partial

import torch

from understudy.data import Arrays
from understudy.setting import Setting, Trained
from understudy.settings import digits
from understudy.signals import IGNORE
from understudy.tasks.task import Task
from understudy.training.budget import Budget

_BUDGET = Budget(epochs=20, batch_size=64, lr=2e-3, weight_decay=1e-4)


def several_teachers() -> Setting:
    """Digits with three teachers of different families: features of 128, 48 and 64 values."""
    setting = digits()
    (first,) = setting.teachers.values()
    teachers = {
        "cnn": first,
        "vit": Trained(model="vit:patch=2,width=48,depth=4,heads=4", budget=_BUDGET),
        "mlp": Trained(model="mlp:width=64,depth=2", budget=_BUDGET),
    }
    return replace(setting, name="digits-teachers", teachers=teachers)


def member_taps(setting: Setting, tap: str = "penultimate") -> tuple[str, ...]:
    """The tap at each teacher, as an ensemble of them names it; the bare tap for one teacher."""
    count = len(setting.teachers)
    return (tap,) if count == 1 else tuple(f"{k}/{tap}" for k in range(count))


def _half_named(split: int, *, known: int) -> Task:
    """Digits of which only the first `known` classes have labels."""
    from understudy.tasks.digits import digits as task

    whole = task(split=split, labels="all")
    teach = whole.teach
    assert isinstance(whole.train, Arrays)
    assert isinstance(teach, Arrays)
    assert whole.train.labels is not None
    assert teach.labels is not None
    hidden = torch.where(whole.train.labels < known, whole.train.labels, IGNORE)
    train = Arrays(whole.train.inputs, hidden, ids=whole.train.ids, name="train")
    options = {"split": split, "known": known}
    return replace(
        whole,
        name=f"digits-{known}-named",
        train=train,
        teach=teach.subset((teach.labels < known).nonzero().flatten()),
        extras={**whole.extras, "options": options, "known": known},
    )


def novel_classes(known: int = 5) -> Setting:
    """Digits with all labels of the first `known` classes and none of the others."""
    setting = digits()
    budget = replace(setting.budget, epochs=30, batch_size=128, lr=3e-3, labelled_share=None)
    return replace(
        setting,
        name=f"digits-{known}-named",
        task=partial(_half_named, known=known),
        teachers={},
        student="cnn:width=16,depth=3",
        budget=budget,
    )


def _parity_and_size(split: int) -> Task:
    """Digits as four classes: even or odd, below five or not; five labels each."""
    from understudy.tasks.digits import digits as task

    whole = task(split=split, labels=2)

    def renamed(source: Arrays | None) -> Arrays | None:
        if source is None or source.labels is None:
            return source
        y = source.labels
        new = torch.where(y < 0, IGNORE, 2 * (y >= 5) + y % 2)
        return Arrays(source.inputs, new, ids=source.ids, name=source.name)

    parts = {p: renamed(getattr(whole, p)) for p in ("train", "teach", "validate", "test")}
    return replace(
        whole,
        **parts,
        name="digits-parity-size",
        classes=4,
        labels=("small even", "small odd", "large even", "large odd"),
        model={**whole.model, "classes": 4},
        extras={**whole.extras, "options": {"split": split}},
    )


def other_task() -> Setting:
    """A teacher of the ten digits; a student of another task with another number of classes."""
    setting = digits()
    (teacher,) = setting.teachers.values()
    assert isinstance(teacher, Trained)
    taught = replace(teacher, task=setting.task)
    return replace(
        setting,
        name="digits-parity-size",
        task=_parity_and_size,
        teachers={"teacher": taught},
    )
