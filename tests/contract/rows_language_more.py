"""Rows of clipped divergences, relations within spans, and losses across tokenizers.

The last stand here on a teacher of the student's own tokens; one of its own is in
`tests/objectives/test_cross_tokenizer.py`.
"""

from dataclasses import replace

import torch
from objective_cases import Case, K, example, narrow
from reference import language_more as ref

from understudy import objectives as us
from understudy.signals import Batch, Signals

L = 4
IDS = torch.randint(K, (6, L), generator=torch.Generator().manual_seed(11))
KINDS = torch.tensor([1, 1, 0, 2, 2])
SHARED = torch.tensor([[0, 2], [3, 1], [4, 4]])
SAME = torch.tensor([[0, 0], [2, 2], [3, 3]])
PAIRS = [tuple(pair) for pair in SHARED.tolist()]


def spans(*, seed=0, same=False, n=6):
    """`example` with logits [N, L, K] of fixed texts."""
    student, teacher, batch = example(seed=seed, same=same, n=n)
    g = torch.Generator().manual_seed(seed + 7)

    def said(signals):
        logits = 2 * torch.randn(n, L, K, generator=g, dtype=torch.float64)
        return Signals(logits=logits, others=signals.others)

    student, teacher = said(student), said(teacher)
    if same:
        teacher = replace(teacher, logits=student.dense.clone())
    inputs = {"input_ids": IDS[:n], "attention_mask": torch.ones(n, L, dtype=torch.long)}
    return student, teacher, Batch(inputs=inputs, index=batch.index)


def tagged(batch):
    """How private each sample is, by its number."""
    return (batch.index % 3).double() / 2


def versions(*, seed=0, same=False, n=6):
    """`example` whose teacher has an old version."""
    student, teacher, batch = example(seed=seed, same=same, n=n)
    g = torch.Generator().manual_seed(seed + 3)
    old = 2 * torch.randn(n, K, generator=g, dtype=torch.float64)
    old = student.dense.clone() if same else old
    return student, replace(teacher, features={**teacher.features, "old": old}), batch


ROWS = [
    Case(
        name="layer_mse",
        make=lambda: us.layer_mse("stage.1", "penultimate"),
        reference=lambda _, s, t, b: ref.layer_mse(s, t, ("stage.1", "penultimate")),
        example=narrow,
        at_equal="zero",
    ),
    *(
        Case(
            name="compatible_kd",
            variant=mask,
            make=lambda mask=mask: us.compatible_kd(temperature=2.0, mask=mask),
            reference=lambda _, s, t, b, mask=mask: ref.compatible(s, t, b.labels, 2.0, mask),
            example=versions,
            at_equal="zero",
            logits=True,
        )
        for mask in ("student", "new")
    ),
    Case(
        name="swing_kd",
        make=lambda: us.swing_kd(tagged, low=1.5, high=6.0),
        reference=lambda _, s, t, b: ref.swing(s, t, [(i % 3) / 2 for i in b.index], 1.5, 6.0),
        logits=True,
    ),
    Case(
        name="swing_kd",
        variant="confidence",
        make=lambda: us.swing_kd(low=1.0, high=3.0),
        reference=lambda _, s, t, b: ref.swing(s, t, None, 1.0, 3.0),
        logits=True,
    ),
    Case(
        name="swing_kd",
        variant="flat",
        make=lambda: us.swing_kd(tagged, low=2.0, high=2.0),
        reference=lambda _, s, t, b: ref.swing(s, t, [0.0] * len(b.index), 2.0, 2.0),
        at_equal="zero",
        logits=True,
    ),
    Case(
        name="dac_kl",
        make=lambda: us.dac_kl(seen=3, width=4, sharpness=6.0),
        reference=lambda state, s, t, b: ref.dac_kl(state, s, t, 3, 6.0),
        at_equal="zero",
        # the student's probabilities that the network sees are constants
        smooth=False,
        logits=True,
    ),
    Case(
        name="span_relation",
        make=lambda: us.span_relation(KINDS),
        reference=lambda _, s, t, b: ref.span_relation(
            s, t, IDS[b.index][:, 1:].tolist(), KINDS.tolist()
        ),
        example=spans,
        at_equal="zero",
    ),
    Case(
        name="span_relation",
        variant="whole",
        make=us.span_relation,
        reference=lambda _, s, t, b: ref.span_relation(s, t, IDS[b.index][:, 1:].tolist(), [1] * K),
        example=spans,
        at_equal="zero",
    ),
    Case(
        name="uld",
        make=us.uld,
        reference=lambda _, s, t, b: ref.uld(s, t),
        logits=True,
    ),
    Case(
        name="gold",
        make=lambda: us.gold(SHARED, matched=0.7, unmatched=0.2),
        reference=lambda _, s, t, b: ref.gold(s, t, PAIRS, 0.7, 0.2),
        logits=True,
    ),
    Case(
        name="gold",
        variant="shares",
        make=lambda: us.gold(SHARED),
        reference=lambda _, s, t, b: ref.gold(s, t, PAIRS, 3 / K, 1 - 3 / K),
        logits=True,
    ),
    Case(
        name="projected_kl",
        make=lambda: us.projected_kl(SHARED),
        reference=lambda _, s, t, b: ref.projected(s, t, PAIRS),
        logits=True,
    ),
    Case(
        name="projected_kl",
        variant="same",
        make=lambda: us.projected_kl(SAME, where="first"),
        reference=lambda _, s, t, b: ref.projected(s, t, [tuple(p) for p in SAME.tolist()]),
        at_equal="zero",
        logits=True,
    ),
]
