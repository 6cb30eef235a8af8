"""Rows of the losses over a vocabulary, on dense logits; their other paths are tested beside."""

from objective_cases import Case
from reference import vocabulary as ref

from understudy import objectives as us


def divergence(kind: str) -> Case:
    return Case(
        name="lm_kd",
        variant=kind,
        make=lambda: us.lm_kd(kind, temperature=2.0),
        reference=lambda _, s, t, b: ref.divergence(kind, s, t, 2.0),
        at_equal="zero",
        logits=True,
    )


ROWS = [
    *(divergence(kind) for kind in ref.KINDS),
    Case(
        name="lm_ce",
        make=us.lm_ce,
        reference=lambda _, s, t, b: ref.ce(s, b.labels, 0.0),
        logits=True,
    ),
    Case(
        name="lm_ce",
        variant="smoothed",
        make=lambda: us.lm_ce(label_smoothing=0.1),
        reference=lambda _, s, t, b: ref.ce(s, b.labels, 0.1),
        logits=True,
    ),
]
