"""What the studies of language models compute, and that they find it on a small world."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from progressions import progressions, sequences
from understudy.data.biographies import BioD
from understudy.errors import UserError
from understudy.recipes import recipes
from understudy.recipes.language_models._studies import joined, text_scores, written
from understudy.recipes.language_models.capacity_gap import best_size, law
from understudy.recipes.language_models.compatibility_reward import adjusted, agreement, ranked
from understudy.recipes.language_models.knowledge_capacity import quantised
from understudy.recipes.language_models.teacher_hacking import hacking, polynomial
from understudy.running import Studio
from understudy.signals import Signals
from understudy.signals.generation import Sampling
from understudy.students import load_model

TINY = "llama:width=16,depth=1,heads=2"


def test_scores_of_texts_are_sums_over_their_scored_tokens() -> None:
    source, _ = sequences(5, 0)
    g = torch.Generator().manual_seed(0)
    z = torch.randn(32, 32, generator=g, dtype=torch.float64)

    def say(batch):
        return Signals(logits=z[batch.inputs["input_ids"]])

    nats, tokens = text_scores(say, source, batch_size=2, classes=2**20)
    table = z.numpy() - np.log(np.exp(z.numpy()).sum(-1, keepdims=True))
    for n in range(5):
        row = source.tokens(n).tolist()
        hand = -sum(table[row[t], row[t + 1]] for t in range(2, 13))
        assert float(nats[n]) == pytest.approx(hand)
    assert tokens.tolist() == [11] * 5


def test_what_is_written_is_scored() -> None:
    source, _ = sequences(3, 0)
    model = load_model(f"{TINY},vocabulary=32,length=32", classes=32)
    found = written(model, source, Sampling(max_new=4, temperature=0), seed=0)
    assert [found.prompt(n).tolist() for n in range(3)] == [
        source.prompt(n).tolist() for n in range(3)
    ]
    assert all(len(found.answer(n)) == 4 for n in range(3))


# --- capacity gap ---------------------------------------------------------------------------------


def test_best_size_is_the_vertex_in_log_size() -> None:
    sizes = [1000, 2000, 4000, 16000]
    losses = [0.3 * (math.log(n) - math.log(3000)) ** 2 + 2 for n in sizes]
    best, fitted = best_size(sizes, losses)
    assert fitted
    assert best == pytest.approx(3000)


def test_best_size_without_a_vertex_is_the_best_rung() -> None:
    assert best_size([10, 20, 40, 80], [4.0, 3.0, 2.0, 1.0]) == (80.0, False)
    assert best_size([10, 20, 40], [1.0, 2.0, 1.5]) == (10.0, False)


def test_law_is_a_line_through_the_origin() -> None:
    assert law([10, 20, 30], [25.0, 50.0, 75.0]) == pytest.approx(2.5)


# --- compatibility-adjusted reward ----------------------------------------------------------------


def test_reward_is_discounted_by_the_loss() -> None:
    assert adjusted(0.8, 0.5, 3.0) == pytest.approx(0.8 / 2.5)


def test_agreement_compares_token_by_token() -> None:
    prompts = [torch.tensor([1, 2])] * 2
    true = joined(prompts, [torch.tensor([3, 4, 5, 6]), torch.tensor([7, 8])], name="true")
    said = joined(prompts, [torch.tensor([3, 9, 5]), torch.tensor([7, 8, 8])], name="said")
    assert agreement(progressions().task, true, said).tolist() == [0.5, 1.0]


def test_ranks() -> None:
    assert ranked([1, 2, 3], [10, 20, 15]) == pytest.approx(0.5)
    assert ranked([1, 1, 1], [1, 2, 3]) == 0.0
    assert ranked([1, 2, 3], [1, 1, 1]) == 0.0


# --- teacher hacking ------------------------------------------------------------------------------


def test_hacking_is_golden_that_rises_while_the_proxy_falls() -> None:
    assert hacking([5, 4, 3, 2], [5, 4, 4.4, 5]) == pytest.approx(0.25)
    assert hacking([5, 4, 3, 2], [5, 4, 3, 2]) == 0.0
    assert hacking([5, 2, 3, 4], [5, 4, 4.4, 5]) == 0.0  # the proxy rises as well
    assert hacking([5, 4, 3, 2], [5, 4, 3, 3.01]) == 0.0  # within noise


def test_polynomial_convergence_is_recognised() -> None:
    t = [1.0, 2, 4, 8, 16, 32]
    a, fit, off = polynomial(t, [3 * s**-0.7 for s in t])
    assert (a, fit, off) == pytest.approx((0.7, 1.0, 0.0), abs=1e-9)
    bent = [3 * s**-0.7 + 0.5 for s in t]
    assert polynomial(t, bent)[2] > 0.1


def test_a_fixed_set_leaves_the_student_farther_from_the_truth() -> None:
    """Four prompts, again and again: what the teacher writes anew brings nearer to the oracle."""
    setting = replace(progressions(steps=120, noise=0.15), student="llama:width=32,depth=1,heads=2")
    recipe = recipes()["teacher_hacking"](
        setting.but(epochs=6), teacher="llama:width=32,depth=1,heads=2", prompts=4, length=0.6,
        teacher_share=3.0, student_share=2.0, points=5, validation=24, teacher_data=96,
    )  # fmt: skip
    found = Studio(None).play(recipe, 0).extras
    figure = found["figure"]
    assert figure["golden_offline"] > figure["golden_online"]
    assert figure["proxy_offline"] > figure["proxy_online"]
    assert figure["hacking_online"] == 0.0
    assert found["proxy_seen_offline"][-1] < found["proxy_seen_offline"][0]
    lists = [v for k, v in found.items() if k != "figure"]
    assert len({len(v) for v in lists}) == 1


# --- knowledge capacity ---------------------------------------------------------------------------


def test_rounding_keeps_every_weight_within_half_a_step() -> None:
    w = torch.randn(5, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for bits in (8, 4):
        step = w.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
        q = quantised(w, bits)
        assert bool(((q - w).abs() <= step / 2 + 1e-12).all())
        assert all(len(row.unique()) <= 2**bits - 1 for row in q)


def test_knowledge_grows_with_exposures_and_survives_int8() -> None:
    recipe = recipes()["knowledge_capacity"](
        sizes=(TINY,), exposures=(4, 80), people=24, name_parts=8, diversity=8, tokens=8,
        batch_size=8, lr=2e-2,
    )  # fmt: skip
    found = Studio(None).play(recipe, 0).extras
    figure, (little,), (much,) = found["figure"], found["bits_at_4"], found["bits_at_80"]
    assert much > little
    assert much <= BioD(names=24, name_parts=8, diversity=8, length=2, tokens=8).bits * 1.001
    assert figure["bits_per_parameter"] > 0.02
    assert figure["bits_per_parameter_int8"] > 0.9 * figure["bits_per_parameter"]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("capacity_gap", {"ladder": (TINY, TINY)}),
        ("compatibility_reward", {"generators": ((TINY, 1.0),)}),
        ("knowledge_capacity", {"sizes": ()}),
        ("knowledge_capacity", {"bits": (16,)}),
    ],
)
def test_refuses(name: str, wrong: dict) -> None:
    with pytest.raises(UserError):
        recipes()[name](progressions(), **wrong)
