"""What teachers have said, on disk: paid for once, read many times."""

from understudy.store.fingerprints import (
    data_fingerprint,
    describe,
    identify,
    teacher_fingerprint,
)
from understudy.store.ledger import Answer, Asked, Failure, Frame, Ledger
from understudy.store.signals import SignalStore
from understudy.store.tokens import (
    TokenStore,
    TokenWriter,
    identify_texts,
    text_hashes,
    tokenizer_fingerprint,
)
from understudy.store.writer import SignalWriter

__all__ = [
    "Answer",
    "Asked",
    "Failure",
    "Frame",
    "Ledger",
    "SignalStore",
    "SignalWriter",
    "TokenStore",
    "TokenWriter",
    "data_fingerprint",
    "describe",
    "identify",
    "identify_texts",
    "teacher_fingerprint",
    "text_hashes",
    "tokenizer_fingerprint",
]
