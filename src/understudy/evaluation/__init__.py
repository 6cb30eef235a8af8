"""Measures on labels, predictions and models: pure functions on tensors that return numbers.

Quality, fidelity, calibration, similarity, cost, robustness, statistics. scipy and scikit-learn are
imported where they are used.
"""

from .calibration import Reliability, brier, ece, fit_temperature, nll, reliability
from .cost import Latency, Memory, Parameters, flops, latency, parameters, peak_memory
from .fidelity import (
    ClassLosses,
    agreement,
    agreement_matrix,
    js,
    kl,
    logit_mse,
    losses_per_class,
    reverse_kl,
    teacher_mse,
    teacher_r2,
    top_k_overlap,
    tv,
)
from .language import TokenScores, generation_speed, token_scores
from .predictions import evaluate
from .quality import (
    IGNORE_INDEX,
    KINDS,
    METRICS,
    Metric,
    accuracy,
    auroc,
    average_precision,
    balanced_accuracy,
    ccc,
    default_metric,
    f1,
    mae,
    mcc,
    metric,
    micro_f1,
    mse,
    pearson,
    r2,
    spearman,
    subset_accuracy,
    top5,
    top_k,
)
from .robustness import CORRUPTIONS, SEVERITIES, corrupted
from .similarity import capa, cka, error_consistency
from .speculative import Speculated, speculate
from .statistics import (
    Interval,
    PairedTest,
    bootstrap_interval,
    holm,
    interval,
    paired_test,
    performance_gap_recovered,
    rank_with_ties,
)

__all__ = [
    "CORRUPTIONS", "IGNORE_INDEX", "KINDS", "METRICS", "SEVERITIES",
    "ClassLosses", "Interval", "Latency", "Memory", "Metric", "PairedTest", "Parameters",
    "Reliability", "Speculated", "TokenScores",
    "accuracy", "agreement", "agreement_matrix", "auroc", "average_precision", "balanced_accuracy",
    "bootstrap_interval", "brier", "capa", "ccc", "cka", "corrupted", "default_metric", "ece",
    "error_consistency", "evaluate", "f1", "fit_temperature", "flops",
    "generation_speed", "holm", "interval", "js",
    "kl",
    "latency", "logit_mse", "losses_per_class", "mae", "mcc", "metric", "micro_f1", "mse", "nll",
    "paired_test", "parameters", "peak_memory", "pearson", "performance_gap_recovered", "r2",
    "rank_with_ties", "reliability", "reverse_kl", "speculate", "spearman", "subset_accuracy",
    "teacher_mse", "teacher_r2", "token_scores", "top5", "top_k", "top_k_overlap", "tv",
]  # fmt: skip
