"""Three grades of privilege over finite domains, and how fast each lets a student learn."""

from typing import Any

import numpy as np

from understudy.setting import Recipe, Setting
from understudy.settings import digits

Array = np.ndarray[Any, Any]
LEARNERS = ("hard", "partial", "naive", "soft")


def transfer_limits(
    setting: Setting | None = None,
    *,
    inputs: int = 10,
    labels: int = 20,
    samples: tuple[int, ...] = (1000, 3000, 10000, 30000, 100000),
    repeats: int = 20,
) -> Recipe:
    """Towards the Fundamental Limits of Knowledge Transfer over Finite Domains.

    A student estimates a teacher over finite sets from n samples: from labels, from labels with the
    teacher's probability of each, from whole distributions; the total variation and its rate in n.

    Source: arXiv 2310.07838
    Kind: measurement
    Equation (section 3, 4): hard labels: maximum likelihood, sqrt(|S||A| / n); partial: minimum of the
        empirical squared error of logits, |S||A| / n; whole: minimum of KL, |S| / n. The naive
        cross-entropy on partial labels, -sum p(a_i | s_i) log pi(a_i | s_i), stays biased
    When: deciding what to pay a teacher for: one label, its probability, or all of them.
    Cost: seconds; nothing is trained by gradient: the minimisers are in closed form.
    Defaults: |S| = 10, |A| = 20, 1,000 to 100,000 samples, 20 repeats.
    Deviations: rates are minimax, so each learner is shown teachers that are hard for it at each n:
        for the second and third grade some labels, or inputs, have a probability of order 1 / n. The
        sizes are ours. The setting is not used.
    Result: rate hard -0.502 ± 0.000469, rate partial -1 ± 0.0166, rate naive -0.0716 ± 0.00275,
        rate soft -0.986 ± 0.03 (3 seeds). See docs/results/studies.md.
    """

    def study(studio: Any, seed: int) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        curves: dict[str, list[float]] = {}
        for learner in LEARNERS:
            errors = []
            for n in samples:
                found = []
                for _ in range(repeats):
                    rho, teacher = hard_for(learner, inputs, labels, n, rng)
                    counts = rng.multinomial(n, (rho[:, None] * teacher).ravel())
                    guess = student(learner, counts.reshape(inputs, labels), teacher)
                    found.append(distance(rho, teacher, guess))
                errors.append(float(np.mean(found)))
            curves[learner] = errors
        slopes = {k: slope(samples, v) for k, v in curves.items()}
        return {
            "figure": {f"rate_{k}": v for k, v in slopes.items()},
            "samples": list(samples),
            "total_variation": curves,
        }

    return Recipe(
        name="transfer_limits",
        setting=setting or digits(),
        kind="measurement",
        study=study,
        settings={"inputs": inputs, "labels": labels, "samples": samples, "repeats": repeats},
    )


def hard_for(
    learner: str, inputs: int, labels: int, n: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """(input distribution [S], teacher [S, A]) on which this learner is slow at n samples.

    hard, naive: inputs alike, a fixed spread of labels (estimating it costs 1 / sqrt(n)). partial:
    inputs alike, one common label each and the others of probability 1 / (samples an input), so
    that a share of them stays unseen. soft: all inputs but one of probability 1 / n.
    """
    rho = np.full(inputs, 1 / inputs)
    teacher = 1 + 0.5 * rng.choice([-1.0, 1.0], size=(inputs, labels))
    if learner == "partial":
        rare = min(inputs / n, 0.5 / (labels - 1))
        teacher = rare * teacher  # unlike, or spreading the rest evenly would be right by chance
        teacher[:, 0] = 1 - teacher[:, 1:].sum(1)
    if learner == "soft":
        rho = np.full(inputs, 1 / n)
        rho[0] = 1 - (inputs - 1) / n
    return rho, teacher / teacher.sum(1, keepdims=True)


def student(learner: str, counts: Array, teacher: Array) -> Array:
    """The learner's estimate [S, A] from counts [S, A] of (input, label) and what it may see.

    hard: relative frequencies. partial: the zero of sum_i (log pi(a_i | s_i) - log p(a_i | s_i))^2:
    the teacher's probability on what was seen, the rest spread over what was not. naive: the
    minimiser of -sum_i p(a_i | s_i) log pi(a_i | s_i), frequencies weighted by the probability.
    soft: the teacher's row of every input that was seen. Inputs never seen: uniform.
    """
    size = counts.shape[1]
    seen_input = counts.sum(1) > 0
    if learner == "soft":
        guess = teacher.copy()
    elif learner == "partial":
        seen = counts > 0
        known = np.where(seen, teacher, 0.0)
        unseen = (~seen).sum(1, keepdims=True)
        rest = np.maximum(1 - known.sum(1, keepdims=True), 0.0) / np.maximum(unseen, 1)
        guess = np.where(seen, teacher, rest)
    else:
        weights = counts * teacher if learner == "naive" else counts.astype(float)
        guess = weights / np.maximum(weights.sum(1, keepdims=True), 1e-300)
    return np.where(seen_input[:, None], guess, 1 / size)


def distance(rho: Array, teacher: Array, guess: Array) -> float:
    """E_rho of the total variation between teacher and student, in [0, 1]."""
    return float((rho * np.abs(teacher - guess).sum(1)).sum() / 2)


def slope(samples: tuple[int, ...], errors: list[float]) -> float:
    """Least-squares slope of log error against log n."""
    return float(np.polyfit(np.log(samples), np.log(np.maximum(errors, 1e-300)), 1)[0])
