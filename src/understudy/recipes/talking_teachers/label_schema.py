"""Labels from a schema: a classifier without any human label."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from understudy.data import Arrays
from understudy.data.labelling import Asking, Labelled, ask, read_labels, soft_way
from understudy.errors import DataError, MethodRefused
from understudy.evaluation import f1
from understudy.evaluation.raters import agree
from understudy.recipes.talking_teachers._definitions import definitions
from understudy.recipes.talking_teachers._students import SMALL, WORDS, right, said, taught
from understudy.recipes.talking_teachers._teachers import answering
from understudy.setting import Recipe, Setting
from understudy.tasks import task as built_in
from understudy.tasks.task import Task


def label_schema(
    setting: Setting | None = None,
    *,
    data: str = "",
    data_dir: str = "",
    labels: str = "",
    endpoint: str = "zero-shot",
    model: str = "",
    key_env: str = "",
    amounts: tuple[int, ...] = (50, 100, 200, 400, 800, 1600),
    most: int = 3200,
    keep: float = 0.5,
    votes: int = 5,
) -> Recipe:
    """LLM Teacher-Student Framework for Text Classification With No Manually Annotated Data.

    A teacher reads a schema of labels with their definitions and labels texts zero-shot; a small
    encoder is trained on growing numbers of its labels and set against people's.

    Source: arXiv 2411.19638
    Kind: procedure
    Equation (none in the paper): y(x) = argmax_k p_teacher(k | x, schema); the student minimises the
        cross-entropy with y over n texts. Agreement: kappa = (p_o - p_e) / (1 - p_e), and
        Krippendorff's alpha = 1 - D_o / D_e.
    When: texts without labels, labels that can be said in words, and many texts to come.
    Cost: one short request a text, once; a student of a bag of words trains in seconds.
    Defaults: the whole schema stands in the prompt with a definition of each label, temperature 0,
        one label a text, as published; amounts double (published: 1,000 to 20,000).
    Deviations: the teacher is a sentence encoder that reads the same prompt (published: GPT-4o; any
        endpoint by `endpoint`, `model`, `key_env`), the student a bag of embeddings (XLM-RoBERTa;
        any by the setting's student), the built-in texts English docstrings by package. Not in the
        paper: the most confident share `keep` of each label against as many random rows, and soft
        targets (log-probabilities, else `votes` answers) against as many hard ones. Languages are
        not told apart.
    Result: built-in texts, three seeds, mean and sd: teacher 68.8 ± 1.4 % right, the student of all
        its labels 69.2 ± 2.4 %, of people's labels 80.0 ± 2.9 %. Half the rows: the most confident
        67.3 %, 2.6 ± 0.9 points over as many random ones; soft targets 1.7 ± 1.6 points under them.
        On TREC (one seed, teacher 47.4 %) both cost: -8.6 and -13.4 points. See
        docs/results/talking-teachers.md.
    """
    if setting is None:
        setting = Setting(
            name="stdlib-text-labels",
            task=partial(texts_task, data="stdlib-text", data_dir=""),
            student=WORDS,
            budget=SMALL,
        )
    if data:
        setting = replace(
            setting, name=f"{data}-labels", task=partial(texts_task, data=data, data_dir=data_dir)
        )
    if setting.kind != "single":
        raise MethodRefused(
            f"label_schema chooses one label of several for a text; {setting.name} is of kind "
            f"{setting.kind}"
        )
    if not 0 < keep < 1:
        raise MethodRefused(f"label_schema keeps a share of the rows in (0, 1), not {keep}")
    known = {
        "data": data, "data_dir": bool(data_dir), "labels": labels, "endpoint": endpoint,
        "model": model, "amounts": amounts, "most": most, "keep": keep, "votes": votes,
    }  # fmt: skip
    study = partial(
        _study,
        setting=setting,
        schema=labels,
        who=(endpoint, model, key_env),
        amounts=amounts,
        most=most,
        keep=keep,
        votes=votes,
    )
    return Recipe(
        name="label_schema", setting=setting, kind="procedure", study=study, settings=known
    )


def texts_task(split: int, *, data: str, data_dir: str) -> Task:
    """A built-in task of texts with every label, which only judge and stand for people's."""
    if data == "stdlib-text":
        made = built_in(data, split=split, labels="all")
    else:
        made = built_in(data, data_dir=data_dir or None, seed=split)
    if "texts" not in made.extras:
        raise DataError(f"{data} is no task of texts; give stdlib-text, trec, banking77 or sst2")
    parts = {"train": made.train, "validate": made.validate, "test": made.test}
    of: dict[str, dict[int, str]] = {}
    for name, source in parts.items():
        texts = made.extras["texts"].get(name, made.extras["texts"]["test"])
        if isinstance(source, Arrays):
            of[name] = dict(zip(source.ids.tolist(), texts, strict=True))
    return replace(made, extras={**made.extras, "text_of": of})


def _study(
    studio: Any,
    seed: int,
    *,
    setting: Setting,
    schema: str,
    who: tuple[str, str, str],
    amounts: Sequence[int],
    most: int,
    keep: float,
    votes: int,
) -> dict[str, Any]:
    task = studio.task(setting, seed)
    assert task.labels is not None
    names = list(task.labels)
    asked = read_labels(schema) if schema else definitions(names)
    if list(asked) != names:
        raise DataError(f"the schema has the labels {list(asked)}, the data {names}")
    endpoint, model, key_env = who
    ledger = None if studio.folder is None else studio.folder / "ledger.sqlite"
    order = np.random.default_rng(seed).permutation(len(task.train))[:most]
    parts = {p: _part(task, p) for p in ("validate", "test")}
    parts["train"] = _part(task, "train", order)
    with answering(None, endpoint, model, key_env=key_env, ledger=ledger) as teacher:
        way = soft_way(teacher, next(iter(parts["train"][1].values())), asked)
        asking = Asking(labels=asked, way=way, votes=votes)
        found = {k: ask(teacher, texts, asking) for k, (_, texts) in parts.items()}
    train, texts = parts["train"]
    rows = [n for n in texts if n in found["train"].rows]
    place = {n: i for i, n in enumerate(train.ids.tolist())}
    hard = torch.tensor([names.index(found["train"].rows[n].label) for n in rows])
    soft = torch.tensor([found["train"].rows[n].soft for n in rows])
    at = torch.tensor([place[n] for n in rows])
    assert train.labels is not None
    gold = train.labels[at]
    # what chooses the weights is the teacher's word as well: people's labels are not known here
    chooses = _told(task.validate, found["validate"], names)

    def score(name: str, of: Tensor, target: Tensor, shares: Tensor | None = None) -> Tensor:
        """Probabilities on test of the student of the rows `of`."""
        part = Arrays(train.subset(at[of]).inputs, target[of], ids=train.ids[at[of]], name="train")
        validate = task.validate if target is gold else chooses
        own = replace(task, train=part, validate=validate, teach=None)
        picked = None if shares is None else shares[of]
        result = taught(studio, seed, f"label_schema-{name}", setting, own, picked)
        return said(result.model, task.test)

    everyone = torch.arange(len(rows))
    sizes = sorted({min(n, len(rows)) for n in (*amounts, len(rows))})
    curves: dict[str, list[float]] = {"labelled": [float(n) for n in sizes]}
    hits: dict[str, Tensor] = {}
    truth = task.test.labels
    for name, target in (("teacher_labels", hard), ("gold_labels", gold)):
        told = [score(f"{name}-{n}", everyone[:n], target) for n in sizes]
        hits[name] = told[-1]
        curves[f"accuracy_{name}"] = [float(right(p, truth).mean()) for p in told]
    count = max(len(names), round(keep * len(rows)))
    sure = _surest(soft, hard, count)
    hits["filtered"] = score("filtered", sure, hard)
    hits["random"] = score("random", everyone[: len(sure)], hard)
    hits["soft"] = score("soft", everyone[: len(sure)], hard, soft)
    hits["gold_random"] = score("gold-random", everyone[: len(sure)], gold)
    return {"figure": _figure(hits, truth, found, task, names, len(sure)), **curves}


def _part(task: Task, name: str, order: Any = None) -> tuple[Arrays, dict[int, str]]:
    """Samples, and their texts by number in the order in which they are labelled."""
    source: Any = getattr(task, name)
    known = task.extras["text_of"][name]
    ids = source.ids.tolist()
    picked = ids if order is None else [ids[i] for i in order]
    return source, {n: known[n] for n in picked}


def _told(source: Any, found: Labelled, names: list[str]) -> Arrays:
    """The samples that the teacher labelled, with its labels."""
    kept = torch.tensor([i for i, n in enumerate(source.ids.tolist()) if n in found.rows])
    part = source.subset(kept)
    labels = [names.index(found.rows[n].label) for n in part.ids.tolist()]
    return Arrays(part.inputs, torch.tensor(labels), ids=part.ids, name=part.name)


def _surest(soft: Tensor, hard: Tensor, count: int) -> Tensor:
    """The most confident rows of each label, its share of `count`, in the order given."""
    confidence = soft.max(-1).values
    kept = []
    for label in hard.unique():
        own = (hard == label).nonzero().flatten()
        n = max(1, round(count * len(own) / len(hard)))
        kept.append(own[confidence[own].argsort(descending=True, stable=True)[:n]])
    return torch.cat(kept).sort().values


def _figure(
    hits: dict[str, Tensor], truth: Tensor, found: dict[str, Labelled], task: Task,
    names: list[str], count: int,
) -> dict[str, float]:  # fmt: skip
    test = found["test"]
    ids = [n for n in task.test.ids.tolist() if n in test.rows]  # pyright: ignore
    known = dict(zip(task.test.ids.tolist(), truth.tolist(), strict=True))  # pyright: ignore
    both = agree(
        np.array([names.index(test.rows[n].label) for n in ids]), np.array([known[n] for n in ids])
    )
    figure = {
        "accuracy_teacher": both.accuracy,
        "kappa_teacher_gold": both.kappa,
        "alpha_teacher_gold": both.alpha,
    }
    for name, shares in hits.items():
        figure[f"accuracy_{name}"] = float(right(shares, truth).mean())
        figure[f"f1_{name}"] = f1(shares, truth)
    figure["rows"] = float(count)
    figure["gain_filtered_over_random"] = figure["accuracy_filtered"] - figure["accuracy_random"]
    figure["gain_soft_over_random"] = figure["accuracy_soft"] - figure["accuracy_random"]
    spent = [f.spent for f in found.values()]
    figure["requests"] = float(sum(s.requests for s in spent))
    figure["tokens"] = float(sum(s.prompt_tokens + s.completion_tokens for s in spent))
    figure["failures"] = float(sum(len(f.failures) for f in found.values()))
    return figure
