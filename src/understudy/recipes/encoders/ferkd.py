"""FerKD: crops that the teacher finds neither trivial nor hopeless, labels by its reliability."""

from functools import partial

from understudy import objectives
from understudy.algorithms import Vouched
from understudy.data.crops import ResizedCrop, SelfMix
from understudy.setting import Recipe, Setting, Stage
from understudy.settings import digits


def ferkd(
    setting: Setting | None = None,
    *,
    scale: tuple[float, float] = (0.5, 1.0),
    candidates: int = 4,
    hardest: float = 0.15,
    reliable: float = 0.4,
    easiest: float = 0.999,
    smoothing: float = 0.1,
    mix: bool = True,
) -> Recipe:
    """FerKD: Surgical Label Adaptation for Efficient Distillation.

    Of random crops those are learned that the teacher finds neither very easy nor very hard; where
    it is unsure of one, the smoothed label stands in for its word. Regions are mixed within an image.

    Source: arXiv 2312.17473
    Kind: method
    Equation (section 3): -sum q log p_s; q = p_t(crop) where max p_t >= reliable, else 1 - eps at the
        label and eps / (K - 1) elsewhere; crops with max p_t outside [hardest, easiest] are left out
    When: heavy cropping, where some crops show the background and others everything.
    Cost: `candidates` teacher passes a batch (the authors store the soft labels of a few hundred crops
        of every image instead); no parameters.
    Defaults: thresholds and the crop's share of area for 8x8 digits (ours); smoothing 0.1, SelfMix.
    Deviations: crops are asked about as they are drawn, the first acceptable of four is taken, in
        place of stored ones. Crops show at least half of the image: less of a digit is none.
        Samples without a label always take the teacher's word.
    Result: accuracy 97.48 % on digits-all (5 seeds); +14.44 points against the student alone,
        better; -0.96 points against plain KD, inside the noise. See docs/results/digits-all.md.
    """
    setting = setting or digits()
    algorithm = partial(
        Vouched,
        view=ResizedCrop(scale=scale),
        candidates=candidates,
        hardest=hardest,
        easiest=easiest,
        mix=SelfMix() if mix else None,
    )
    stage = Stage(
        objective=objectives.ferkd(reliable=reliable, smoothing=smoothing), algorithm=algorithm
    )
    return Recipe(name="ferkd", setting=setting, stages=(stage,))
