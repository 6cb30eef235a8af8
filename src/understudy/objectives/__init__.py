"""What the student is asked to match: pure functions of two models' signals, one file a family."""

from understudy.objectives.agglomerate import mimic, phi_s, unic
from understudy.objectives.authored import adaptive_skew, written_by
from understudy.objectives.base import (
    Function,
    Needs,
    Objective,
    PerBatch,
    PerSample,
    Reads,
    Sum,
    Term,
    Total,
    total,
)
from understudy.objectives.batchwise import (
    ccc,
    cmi,
    mixed_labels,
    mixed_match,
    self_confidence,
)
from understudy.objectives.compatible import compatible_kd
from understudy.objectives.connect import Connector
from understudy.objectives.contrastive import crd, wcord
from understudy.objectives.cross_attention import scalekd
from understudy.objectives.cross_tokenizer import gold, projected_kl, uld
from understudy.objectives.discovery import class_relation, human_choice, odd_one_out
from understudy.objectives.explain import explanation
from understudy.objectives.features import at, hint
from understudy.objectives.head_tail import akl
from understudy.objectives.heads import nd, simkd, srrl
from understudy.objectives.interpolated import taid
from understudy.objectives.layers import layer_mse
from understudy.objectives.logits import binary_kd, consistency, dkd, kd, match_outputs
from understudy.objectives.logits_more import (
    bd_kd,
    ctkd,
    dist,
    jeffreys,
    logit_standardization,
    mlkd,
    ofa,
    tf_kd,
    wsld,
)
from understudy.objectives.policy import sampled_kl
from understudy.objectives.relations import cc, pkt, rkd, sp
from understudy.objectives.review import reviewkd
from understudy.objectives.revision import dac_kl, span_relation
from understudy.objectives.schedules import ramp
from understudy.objectives.self_distillation import byot
from understudy.objectives.sequence_kl import sequence_reverse_kl
from understudy.objectives.soft import certain_kd, ferkd, js, partial_kd, soft_ce, tempered_ce
from understudy.objectives.statistics import fsp, ickd, nst, vid
from understudy.objectives.supervised import bce, ce, mse
from understudy.objectives.swing import swing_kd
from understudy.objectives.tokens import trg
from understudy.objectives.transfer import ab, ft, ofd
from understudy.objectives.turned import pretext, similarity_kd, turned_kd
from understudy.objectives.vocabulary import lm_ce, lm_kd

__all__ = [
    "Connector",
    "Function",
    "Needs",
    "Objective",
    "PerBatch",
    "PerSample",
    "Reads",
    "Sum",
    "Term",
    "Total",
    "ab",
    "adaptive_skew",
    "akl",
    "at",
    "bce",
    "bd_kd",
    "binary_kd",
    "byot",
    "cc",
    "ccc",
    "ce",
    "certain_kd",
    "class_relation",
    "cmi",
    "compatible_kd",
    "consistency",
    "crd",
    "ctkd",
    "dac_kl",
    "dist",
    "dkd",
    "explanation",
    "ferkd",
    "fsp",
    "ft",
    "gold",
    "hint",
    "human_choice",
    "ickd",
    "jeffreys",
    "js",
    "kd",
    "layer_mse",
    "lm_ce",
    "lm_kd",
    "logit_standardization",
    "match_outputs",
    "mimic",
    "mixed_labels",
    "mixed_match",
    "mlkd",
    "mse",
    "nd",
    "nst",
    "odd_one_out",
    "ofa",
    "ofd",
    "partial_kd",
    "phi_s",
    "pkt",
    "pretext",
    "projected_kl",
    "ramp",
    "reviewkd",
    "rkd",
    "sampled_kl",
    "scalekd",
    "self_confidence",
    "sequence_reverse_kl",
    "similarity_kd",
    "simkd",
    "soft_ce",
    "sp",
    "span_relation",
    "srrl",
    "swing_kd",
    "taid",
    "tempered_ce",
    "tf_kd",
    "total",
    "trg",
    "turned_kd",
    "uld",
    "unic",
    "vid",
    "wcord",
    "written_by",
    "wsld",
]
