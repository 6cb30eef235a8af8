"""Swing distillation: flattened, noisy targets where text is private."""

from understudy.data.alignment import pieces_of
from understudy.data.privacy import PATTERN, Tagger
from understudy.errors import MethodRefused, unknown
from understudy.objectives import swing_kd
from understudy.objectives.swing import Likelihood
from understudy.recipes.language_models._worlds import speaking, vocabulary_of
from understudy.setting import Recipe, Setting, Stage


def swing(
    setting: Setting | None = None,
    *,
    detector: str = "pattern",
    pattern: str = PATTERN,
    low: float = 1.0,
    high: float = 10.0,
    noise: float = 0.2,
    ce_weight: float = 0.0,
) -> Recipe:
    """Swing Distillation: A Privacy-Preserving Knowledge Distillation Framework.

    Each token's soft target has a temperature that rises with the likelihood that the token is
    private, and noise; the student matches that. `canary_exposure` measures what leaks.

    Source: arXiv 2212.08349
    Kind: method
    Equation (section 3): KL(softmax(z_t / T_n) + noise || q), T_n = low + (high - low) r_n
    When: the teacher has read texts that its student must not give away.
    Cost: as KD; the tagger reads each text once a batch.
    Defaults: temperatures 1 to 10, noise of 0.2 / V a token, no hard labels: these are ours. detector
        `pattern`: a regular expression over the text (addresses, long numbers); `confidence`: the
        teacher's largest probability.
    Deviations: known from its abstract and descriptions; the paper's own formulas of temperature and
        noise were not at hand. The student keeps the low temperature, or it could undo the
        flattening. The tagger is a regular expression, any other is given to the objective.
    Result: exact match 79.0 % on school-reader (3 seeds); +2.08 points against the student alone,
        inside the noise; +0.14 points against plain KD, inside the noise. See
        docs/results/school-reader.md.
    """
    setting = speaking(setting, "swing")
    likelihood = _detector(setting, detector, pattern)
    term = swing_kd(likelihood, low=low, high=high, noise=noise)
    objective = ce_weight * setting.supervised() + term if ce_weight else 1.0 * term
    return Recipe(
        name="swing",
        setting=setting,
        stages=(Stage(objective=objective),),
        settings={"detector": detector, "pattern": pattern},
    )


def _detector(setting: Setting, detector: str, pattern: str) -> Likelihood | None:
    if detector == "confidence":
        return None
    if detector != "pattern":
        raise unknown("detector of private tokens", detector, ("pattern", "confidence"))
    tokenizer, vocabulary = vocabulary_of(setting)
    if tokenizer is None:
        raise MethodRefused(
            f"swing finds private text by a pattern, and {setting.name} has no tokenizer to read its "
            "tokens with; use detector=confidence"
        )
    return Tagger(pieces_of(tokenizer, vocabulary=vocabulary), pattern)
