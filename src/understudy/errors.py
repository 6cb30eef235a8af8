"""What goes wrong on the user's side, each said in one line: what, where, what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Wrong input. The command line prints it as one line and exits with code 2."""


class UnknownName(UserError):
    """A name that does not exist; the message offers the nearest ones."""


class SignalError(UserError):
    """A signal that a model cannot give: no such tap path, a shape that does not fit."""


class DataError(UserError):
    """Data that cannot be learned from: empty, not finite, mislabelled, of another form."""


class CheckpointError(UserError):
    """A checkpoint, store or run folder that is torn, corrupt, of another run, or not writable."""


class LedgerError(UserError):
    """A ledger of answers that is none, is corrupt, is held by others, or cannot be written."""


class MethodRefused(UserError):
    """A method that cannot serve this setting; says why and what would."""


class NotFinite(UserError):
    """A loss term or gradient that is not finite; raised before the step; names term, samples."""


class DeadTerm(UserError):
    """A loss term whose gradient stayed zero without having declared that it may."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """`; did you mean a, b?` for the nearest of `known`, or the whole list where it is short."""
    known = sorted(set(known))
    close = get_close_matches(name, known, n=count, cutoff=0.4)
    if close:
        return "; did you mean " + ", ".join(close) + "?"
    return (
        f"; there are {', '.join(known[:20])}{' ...' if len(known) > 20 else ''}" if known else ""
    )


def unknown(kind: str, name: str, known: Iterable[str]) -> UnknownName:
    """`no method 'kdd'; did you mean kd, dkd?`."""
    return UnknownName(f"no {kind} {name!r}{nearest(name, known)}")
