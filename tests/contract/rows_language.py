"""Rows of the objectives of language models.

Those that read labels position by position stand on single positions; the others on texts.
"""

from dataclasses import replace

import torch
from objective_cases import Case, K, example
from reference import language as ref

from understudy import objectives as us
from understudy.signals import Signals
from understudy.signals.authors import STUDENT, TEACHER, marked

L = 4


def texts(*, seed=0, same=False, n=6):
    """`example` with logits [N, L, K] and labels [N, L]."""
    student, teacher, batch = example(seed=seed, same=same, n=n)
    g = torch.Generator().manual_seed(seed + 7)

    def said(signals):
        logits = 2 * torch.randn(n, L, K, generator=g, dtype=torch.float64)
        return Signals(logits=logits, others=signals.others)

    student, teacher = said(student), said(teacher)
    if same:
        teacher = replace(teacher, logits=student.dense.clone())
    labels = torch.randint(K, (n, L), generator=g)
    return student, teacher, replace(batch, labels=labels)


def by_students(*, seed=0, same=False, n=6):
    """`texts` that the student has written."""
    student, teacher, batch = texts(seed=seed, same=same, n=n)
    return student, teacher, replace(batch, index=marked(torch.arange(n), STUDENT))


def in_the_middle(objective, example):
    """t as after some updates."""
    objective.t.fill_(0.7)
    objective.momentum.fill_(0.02)


def measured(objective, example):
    """The mean gap as after the first update."""
    objective.anchor.fill_(0.013)


def sampled(estimator, **settings):
    return Case(
        name="sampled_kl",
        variant=estimator,
        make=lambda: us.sampled_kl(estimator, **settings),
        reference=lambda _, s, t, b: ref.sampled(s, t, b.labels, estimator),
        # its value is the estimator's, its gradient that of the policy
        smooth=estimator != "k1",
        at_equal="zero" if estimator != "k1" else None,
        logits=True,
    )


def skewed(direction, *, adaptive):
    anchor = 0.013 if adaptive else None
    return Case(
        name="adaptive_skew",
        variant=f"{direction}-{'adaptive' if adaptive else 'fixed'}",
        make=lambda: us.adaptive_skew(direction, adaptive=adaptive, constant=False),
        reference=lambda _, s, t, b: ref.skew(s, t, b.labels, direction, anchor=anchor),
        example=texts,
        at_equal="zero",
        # the share is a constant for the gradient
        smooth=not adaptive,
        prepare=measured if adaptive else None,
    )


ROWS = [
    sampled("k1"),
    sampled("k2"),
    sampled("k3"),
    Case(
        name="sequence_reverse_kl",
        make=us.sequence_reverse_kl,
        reference=lambda _, s, t, b: ref.minillm(s, t, b.labels, 0.2),
        example=texts,
        at_equal="zero",
        smooth=False,
    ),
    *(
        Case(
            name="taid",
            variant=form,
            make=lambda form=form: us.taid(form=form),
            reference=lambda state, s, t, b, form=form: ref.taid(s, t, state["t"], form),
            example=texts,
            at_equal="zero" if form == "kl" else "minimum",
            smooth=False,
            prepare=in_the_middle,
            logits=True,
        )
        for form in ("kl", "cross_entropy")
    ),
    Case(
        name="akl",
        make=us.akl,
        reference=lambda _, s, t, b: ref.akl(s, t, 0.5),
        example=texts,
        at_equal="zero",
        smooth=False,
        logits=True,
    ),
    skewed("forward", adaptive=False),
    skewed("forward", adaptive=True),
    skewed("reverse", adaptive=False),
    skewed("reverse", adaptive=True),
    Case(
        name="written_by",
        make=lambda: us.written_by(us.lm_kd("reverse_kl"), STUDENT, TEACHER),
        reference=lambda _, s, t, b: ref.divergence("reverse_kl", s, t),
        example=by_students,
        at_equal="zero",
        logits=True,
    ),
]
