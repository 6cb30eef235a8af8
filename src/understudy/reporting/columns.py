"""The columns of a table: what each shows of an arm, and which go first where space is short."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from understudy.reporting import summary as s
from understudy.reporting import words


@dataclass(frozen=True, kw_only=True)
class Column:
    """Two lines of header, a cell for every arm; `rank` 0 always stays, the highest go first."""

    header: tuple[str, str]
    text: Callable[[s.Arm], str]
    rank: int
    align: Literal["left", "right"] = "right"


_FIRST = {"exact_match": 2, "bits_per_byte": 3}
_KNOWN = {
    "agreement": 1, "acceptance": 2, "teacher_mse": 1, "kl": 5, "teacher_r2": 5, "ece": 7,
    "nll": 12,
}  # fmt: skip


def columns(summary: s.Summary) -> list[Column]:
    """The columns that say something about this run or league, in the order they are shown."""
    league = s.is_league(summary)
    found = [*_names(summary, league), *_quality(summary), *_fidelity(summary)]
    found += _league(summary) if league else _cost(summary)
    rows = summary["arms"]
    return [c for c in found if c.rank == 0 or any(c.text(arm) != "-" for arm in rows)]


def _names(summary: s.Summary, league: bool) -> list[Column]:
    named = Column(header=("", ""), text=s.title, rank=0, align="left")
    if not league:
        return [named]
    ranks = [a.get("rank") for a in summary["arms"]]

    def rank(arm: s.Arm) -> str:
        own = arm.get("rank")
        return "-" if own is None else f"{own}=" if ranks.count(own) > 1 else f"{own} "

    return [Column(header=("", "rank"), text=rank, rank=0), named]


def _quality(summary: s.Summary) -> list[Column]:
    metric = summary["task"]["metric"]
    head = f"{words.name(metric, short=True)[:14]} {words.unit(metric)}".strip()

    alone = s.seeds(summary) == 1

    def last(arm: s.Arm) -> str:
        if arm.get("error"):
            return "failed"
        written = words.with_interval(s.spread(arm, metric), metric)
        return f"{written} (no interval)" if alone and written != "-" else written

    # a published protocol has no validation split: its best was chosen on the test split
    published = (summary.get("protocol") or {}).get("name") == "published"
    found = [
        Column(header=(head, "last"), text=last, rank=0),
        Column(
            header=(head, "best on test" if published else "best on val"), rank=6,
            text=lambda a: words.with_interval(s.spread(a, metric, "best"), metric),
        ),
    ]  # fmt: skip
    for k, measure in enumerate(s.measures(summary)[1:]):
        if measure not in _KNOWN:
            found.append(_measure(measure, _FIRST.get(measure, 20 + k)))
    return found


def _fidelity(summary: s.Summary) -> list[Column]:
    ranks = dict(_KNOWN)
    if s.is_league(summary):
        ranks |= {"ece": 10}
    present = s.measures(summary)[1:]
    return [_measure(m, ranks[m]) for m in present if m in ranks]


def _measure(measure: str, rank: int) -> Column:
    to_teacher = measure in ("agreement", "acceptance", "kl", "teacher_mse", "teacher_r2")

    def text(arm: s.Arm) -> str:
        if to_teacher and arm.get("role") == "teacher":
            return "-"
        return words.value(s.mean(arm, measure), measure)

    head = (words.name(measure, short=True), words.unit(measure))
    return Column(header=head, text=text, rank=rank)


def _cost(summary: s.Summary) -> list[Column]:
    def milliseconds(batch: str) -> Callable[[s.Arm], str]:
        return lambda a: words.milliseconds(s.cost(a, "latency_ms", batch, "p50"))

    flops = ("FLOPs", "a token" if _speaks(summary) else "")
    return [
        Column(header=("params", ""), text=lambda a: words.count(s.cost(a, "parameters")), rank=2),
        Column(header=flops, text=lambda a: words.count(s.cost(a, "flops")), rank=9),
        Column(header=("ms at", "batch 1"), text=milliseconds("1"), rank=4),
        Column(header=("ms at", "256"), text=milliseconds("256"), rank=8),
        *_speeds(),
        _training(3),
        _share(11),
    ]


def _league(summary: s.Summary) -> list[Column]:
    names = list(dict.fromkeys(k for a in summary["arms"] for k in a.get("corrupted") or {}))
    metric = summary["task"]["metric"]
    # the headline metric on corrupted inputs; where there is none, whatever was measured there
    names = [metric] if metric in names else names

    def corrupted(name: str) -> Column:
        measure = name if name in words.PERCENT else metric if metric in words.PERCENT else name
        head = ("corrupted", f"{words.name(name, short=True)[:12]} {words.unit(measure)}".strip())
        return Column(
            header=head, rank=4,
            text=lambda a: words.value(s.number((a.get("corrupted") or {}).get(name)), measure),
        )  # fmt: skip

    def step(arm: s.Arm) -> str:
        own = s.number(arm.get("step_ms"))
        return words.milliseconds(s.mean(arm, "step_ms", "run") if own is None else own)

    return [
        *[corrupted(name) for name in names],
        Column(header=("step", "ms"), text=step, rank=2),
        Column(
            header=("peak", "MB"), rank=3,
            text=lambda a: "-" if (m := s.number(a.get("peak_mb"))) is None else f"{m:.0f}",
        ),
        Column(
            header=("extra", "params"), rank=8,
            text=lambda a: words.count(s.number(a.get("extra_parameters"))),
        ),
        Column(header=("params", ""), text=lambda a: words.count(s.cost(a, "parameters")), rank=13),
        *_speeds(),
        _training(9),
        _share(11),
    ]  # fmt: skip


def _speaks(summary: s.Summary) -> bool:
    """Whether the models write text."""
    return summary["task"].get("kind") == "language"


def _speeds() -> list[Column]:
    """Tokens a second, of language models: written one text at a time, and in training."""
    return [
        Column(
            header=("writes", "tokens/s"), rank=4,
            text=lambda a: words.count(s.cost(a, "tokens_per_second", "1")),
        ),
        Column(
            header=("trains", "tokens/s"), rank=6,
            text=lambda a: words.count(s.tokens_per_second(a)),
        ),
    ]  # fmt: skip


def _training(rank: int) -> Column:
    return Column(
        header=("trains", "in"),
        text=lambda a: words.duration(s.mean(a, "seconds", "run")),
        rank=rank,
    )


def _share(rank: int) -> Column:
    def text(arm: s.Arm) -> str:
        share = s.teacher_share(arm)
        return "-" if share is None else f"{100 * share:.0f} %"

    return Column(header=("teacher's", "share"), text=text, rank=rank)
