"""Sentences that a document supports, and sentences that it does not: made from Python's own docs."""

import ast
import re
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from zlib import crc32

from understudy.teachers.experts.overlap import NEGATIONS, OPPOSITES, STOP, names, sentences

_SKIPPED = ("test", "idlelib", "lib2to3", "turtledemo", "pydoc_data", "site-packages", "encodings")
_WORD = re.compile(r"[A-Za-z][\w'-]*")


@dataclass(frozen=True)
class Pair:
    """A document, a sentence, whether it is supported, and how it was made."""

    document: str
    sentence: str
    supported: bool
    made: str
    part: str


@dataclass(frozen=True)
class Text:
    """A passage: its sentences, the file it is from, and the part (train, validate, test)."""

    sentences: tuple[str, ...]
    source: str
    part: str


def passages() -> list[Text]:
    """Three to seven sentences of prose each, from docstrings and the language reference.

    A file's (or topic's) passages are all in one part: one fifth test, one tenth validate.
    """
    found = []
    for source, text in _texts():
        bucket = crc32(source.encode()) % 10
        part = "test" if bucket < 2 else "validate" if bucket < 3 else "train"
        for block in re.split(r"\n\s*\n(?=\s*[*\-=~^#])|\n[*\-=~^#]{3,}\n", text):
            prose = [s for s in sentences(_clean(block)) if _is_prose(s)]
            for start in range(0, len(prose) - 2, 6):
                found.append(Text(tuple(prose[start : start + 6]), source, part))
    unique = {t.sentences: t for t in found}
    return sorted(unique.values(), key=lambda t: (t.source, t.sentences))


def _texts() -> list[tuple[str, str]]:
    import pydoc_data.topics

    root = Path(sysconfig.get_paths()["stdlib"])
    found = [(f"topic {k}", v) for k, v in pydoc_data.topics.topics.items()]
    for file in sorted(root.rglob("*.py")):
        name = file.relative_to(root).as_posix()
        if any(part in _SKIPPED or part == "tests" for part in name.split("/")):
            continue
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text and len(text) > 160:
                    found.append((name, text))
    return found


def _clean(block: str) -> str:
    lines = [x for x in block.splitlines() if not re.match(r"\s*(>>>|\.\.\.|\||\$|::)", x)]
    return re.sub(r'[`*]+|"(?=\w+")|(?<=\w)"', "", " ".join(lines))


def _is_prose(sentence: str) -> bool:
    plain = re.findall(r"\b[a-z]{2,}\b", sentence)
    return (
        7 <= len(sentence.split()) <= 38
        and sentence[0].isupper()
        and sentence.endswith(".")
        and len(plain) >= 0.7 * len(sentence.split())
        and not re.search(r"[={}<>|\\@]|--|\.\.", sentence)
    )


# -- what leaves the meaning as it is ---------------------------------------------------------

_WORDS = {
    "returns": "gives back", "return": "give back", "use": "employ", "used": "employed",
    "create": "make", "creates": "makes", "created": "made", "allows": "lets", "given": "specified",
    "specified": "given", "usually": "normally", "normally": "usually", "such as": "like",
    "contains": "holds", "contain": "hold", "raised": "thrown", "occurs": "happens",
    "called": "invoked", "modify": "change", "changes": "alterations", "obtain": "get",
    "argument": "parameter", "arguments": "parameters", "parameter": "argument", "error": "failure",
    "provides": "offers", "provide": "offer", "begins with": "starts with", "entire": "whole",
    "in order to": "to", "whether": "if", "attempt": "try", "attempts": "tries",
    "performed": "carried out", "immediately": "at once", "method": "routine",
    "therefore": "so", "required": "needed", "requires": "needs", "multiple": "several",
    "however": "but", "numerous": "many", "additional": "further", "since": "because",
    "determine": "find out", "indicates": "shows", "execute": "run", "executed": "run",
    "identical": "equal", "produce": "yield", "support": "allow for", "supports": "allows for",
}  # fmt: skip
_SHORT = {
    "does not": "doesn't", "do not": "don't", "cannot": "can't", "is not": "isn't",
    "are not": "aren't", "will not": "won't", "should not": "shouldn't", "did not": "didn't",
}  # fmt: skip
_LEADING = re.compile(
    r"^(?:Note that|However,|Thus,|Also,|In addition,|For example,|Currently,)\s+"
)
_COUNTS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def other_words(s: str, random: Random) -> str:
    """Up to three words for others that mean the same here."""
    known = [k for k in _WORDS if re.search(rf"\b{k}\b", s)]
    for k in random.sample(known, min(3, len(known))):
        s = re.sub(rf"\b{k}\b", _WORDS[k], s, count=1)
    return s


def short_forms(s: str, random: Random) -> str:
    """does not -> doesn't, and back."""
    for a, b in random.sample(sorted(_SHORT.items()), len(_SHORT)):
        if a in s:
            return s.replace(a, b, 1)
        if b in s:
            return s.replace(b, a, 1)
    return s


def shortened(s: str, random: Random) -> str:
    """Without what stands in brackets, an opening word, or a last subordinate clause."""
    made = _LEADING.sub("", re.sub(r"\s*\([^)]*\)", "", s))
    cut = re.sub(
        r",\s+(?:which|where|so|e\.g\.|for example|because|since|although)\b.*$", ".", made
    )
    made = cut if random.random() < 0.7 and len(cut.split()) >= 5 else made
    return made[:1].upper() + made[1:]


def turned(s: str, random: Random) -> str:
    """If A, B. -> B if A., and back."""
    found = re.match(r"^(If|When|Unless) ([^,]{8,}), (?:then )?([^,]+)\.$", s)
    if found is None:
        back = re.match(
            r"^([^,]{15,}) ((?:after|before|when|if|during|without|by|for|in|on|at) [^,]{6,50})\.$",
            s,
        )
        if back is None:
            return s
        return f"{back[2][:1].upper()}{back[2][1:]}, {back[1][:1].lower()}{back[1][1:]}."
    return f"{found[3][:1].upper()}{found[3][1:]} {found[1].lower()} {found[2]}."


def digits(s: str, random: Random) -> str:
    """two -> 2."""
    for n, word in enumerate(_COUNTS, 2):
        if re.search(rf"\b{word}\b", s):
            return re.sub(rf"\b{word}\b", str(n), s, count=1)
    return s


_DONE = {
    "return": "returned", "raise": "raised", "create": "created", "close": "closed", "set": "set",
    "remove": "removed", "call": "called", "provide": "provided", "use": "used", "add": "added",
    "read": "read", "write": "written", "open": "opened", "convert": "converted", "send": "sent",
    "start": "started", "stop": "stopped", "check": "checked", "replace": "replaced",
    "override": "overridden", "execute": "executed", "parse": "parsed", "handle": "handled",
    "encode": "encoded", "decode": "decoded", "ignore": "ignored", "define": "defined",
    "accept": "accepted", "specify": "specified", "contain": "contained", "make": "made",
    "change": "changed", "compare": "compared", "compute": "computed", "delete": "deleted",
    "evaluate": "evaluated", "extract": "extracted", "find": "found", "give": "given",
    "generate": "generated", "get": "fetched", "invoke": "invoked", "load": "loaded",
    "perform": "performed", "print": "printed", "produce": "produced", "register": "registered",
    "represent": "represented", "run": "run", "save": "saved", "store": "stored",
    "update": "updated", "wrap": "wrapped", "construct": "constructed", "insert": "inserted",
    "determine": "determined", "describe": "described", "test": "tested", "copy": "copied",
}  # fmt: skip
_DOING = "|".join(_DONE)
_THING = r"((?:the|a|an|its|all|any|each|every)(?: [\w'.-]+){1,4}?)"
_REST = (
    r"((?: (?:if|when|in|on|to|from|for|after|before|with|as|at|using|of|that|which|into)\b.*)?)"
)
_ACTIVE = re.compile(
    rf"^((?:The|A|An|This|Each|It)(?: [\w-]+){{0,2}}) ({_DOING})e?s {_THING}{_REST}\.$"
)
_ORDER = re.compile(rf"^()({_DOING.title()}) {_THING}{_REST}\.$")


def passive(s: str, random: Random) -> str:
    """X closes the Y. -> The Y is closed by X., half of the time without X."""
    found = _ACTIVE.match(s) or _ORDER.match(s)
    if found is None:
        return s
    who, verb, what, rest = found.groups()
    many = what.startswith("all") or (what.startswith("the") and re.search(r"[^s]s$", what))
    by = f" by {who[:1].lower()}{who[1:]}" if who and random.random() < 0.5 else ""
    if rest.startswith((" of ", " that ", " which ")):
        return s  # what follows belongs to the thing
    is_ = "are" if many else "is"
    return f"{what[:1].upper()}{what[1:]} {is_} {_DONE[verb.lower()]}{by}{rest}."


KEEPING: dict[str, Callable[[str, Random], str]] = {
    "other words": other_words, "short forms": short_forms, "shortened": shortened,
    "turned": turned, "digits": digits, "passive": passive,
}  # fmt: skip


def light(s: str, random: Random) -> str:
    """The sentence after one to three changes that keep its meaning, or as it is."""
    for name in random.sample(sorted(KEEPING), random.choice((0, 1, 2, 4, 6))):
        s = KEEPING[name](s, random)
    return s


# -- what does not ------------------------------------------------------------------------------


def number(s: str, text: Text, others: list[Text], random: Random) -> str | None:
    """Another number in the place of one."""
    found = list(re.finditer(r"(?<![\w.])\d+(?![\w.])|\b(?:one|" + "|".join(_COUNTS) + r")\b", s))
    if not found:
        return None
    m = random.choice(found)
    if m[0].isdigit():
        value = int(m[0])
        new = str(random.choice([v for v in (value + 1, value * 2, value + 10, max(0, value - 1)) if v != value]))  # fmt: skip
    else:
        new = random.choice([w for w in _COUNTS if w != m[0]])
    return s[: m.start()] + new + s[m.end() :]


def name(s: str, text: Text, others: list[Text], random: Random) -> str | None:
    """Another name in the place of one: of this document, or of another."""
    own = [m for m in re.finditer(r"[A-Za-z_][\w.]*\w", s) if m[0].lower() in names(s)]
    if not own:
        return None
    m = random.choice(own)
    from_here = random.random() < 0.5
    pool = text.sentences if from_here else random.choice(others).sentences
    known = [w for x in pool for w in re.findall(r"[A-Za-z_][\w.]*\w", x) if w.lower() in names(x)]
    known = [w for w in known if w.lower() != m[0].lower()]
    return s[: m.start()] + random.choice(known) + s[m.end() :] if known else None


def negation(s: str, text: Text, others: list[Text], random: Random) -> str | None:
    """A `not` put in or taken out."""
    out = re.sub(r"\b(is|are|was|were|does|do|did|will|can|should|must|may|has|have) not\b", r"\1", s, count=1)  # fmt: skip
    out = re.sub(r"\bcannot\b", "can", out, count=1) if out == s else out
    out = re.sub(r"\b(is|are|do|does|has|should)n't\b", r"\1", out, count=1) if out == s else out
    if out != s:
        return out
    put = list(re.finditer(r"\b(is|are|was|were|will|can|should|must|may|has been|have been)\b", s))
    if put:
        m = random.choice(put)
        return f"{s[: m.end()]} not{s[m.end() :]}"
    verb = re.search(r"\b(returns|raises|takes|uses|gives|contains|provides|supports|creates|calls|makes|needs|allows|means|causes|accepts|reads|writes)\b", s)  # fmt: skip
    if verb is None:
        return None
    return f"{s[: verb.start()]}does not {verb[0][:-1]}{s[verb.end() :]}"


def opposite(s: str, text: Text, others: list[Text], random: Random) -> str | None:
    """A word for its opposite."""
    both = [(a, b) for x, y in OPPOSITES for a, b in ((x, y), (y, x))]
    known = [(a, b) for a, b in both if re.search(rf"\b{a}\b", s, re.IGNORECASE)]
    if not known:
        return None
    a, b = random.choice(known)
    return re.sub(rf"\b{a}\b", b, s, count=1, flags=re.IGNORECASE)


def exchanged(s: str, text: Text, others: list[Text], random: Random) -> str | None:
    """Two things change places: who does what to whom."""
    known = [
        m for m in _WORD.finditer(s)
        if len(m[0]) > 3 and m[0].lower() not in STOP | NEGATIONS and not re.search(r"(ly|ing|ed)$", m[0])
        and s.lower().count(m[0].lower()) == 1
    ]  # fmt: skip
    if len(known) < 3:
        return None
    a, b = sorted(random.sample(range(len(known)), 2))
    if b - a < 2:
        return None
    x, y = known[a], known[b]
    new = s[: x.start()] + y[0].lower() + s[x.end() : y.start()] + x[0].lower() + s[y.end() :]
    return new[:1].upper() + new[1:]


def elsewhere(s: str, text: Text, others: list[Text], random: Random) -> str | None:
    """A sentence of another document: of the same file where there is one, half of the time."""
    same = [t for t in others if t.source == text.source and t.sentences != text.sentences]
    pool = same if same and random.random() < 0.5 else others
    return random.choice(random.choice(pool).sentences)


def spliced(s: str, text: Text, others: list[Text], random: Random) -> str | None:
    """The beginning of one sentence and the end of another document's."""
    other = random.choice(random.choice(others).sentences).split()
    own = s.split()
    return " ".join(own[: max(3, len(own) // 2)] + other[-max(3, len(other) // 2) :])


TRAINED = (number, name, negation, opposite, exchanged, elsewhere, spliced)


def quantifier(s: str, text: Text, others: list[Text], random: Random) -> str | None:
    """all -> some, at least -> at most, only -> also: never trained on."""
    for a, b in (
        ("at least", "at most"), ("at most", "at least"), ("only", "also"), ("all", "few"),
        ("every", "no"), ("each", "one"), ("any", "a single"), ("some", "all"), ("most", "all"),
        ("many", "few"), ("both", "neither of"), ("several", "all"),
    ):  # fmt: skip
        if re.search(rf"\b{a}\b", s):
            return re.sub(rf"\b{a}\b", b, s, count=1)
    return None


def modality(s: str, text: Text, others: list[Text], random: Random) -> str | None:
    """may -> must, must -> need: never trained on."""
    for a, b in (
        ("may", "must"), ("can", "has to"), ("must", "may"), ("should", "is free to"),
        ("might", "will"), ("usually", "in every case"), ("normally", "in every case"),
        ("often", "rarely"), ("sometimes", "constantly"),
    ):  # fmt: skip
        if re.search(rf"\b{a}\b", s) and not re.search(rf"\b{a} not\b", s):
            return re.sub(rf"\b{a}\b", b, s, count=1)
    return None


def added(s: str, text: Text, others: list[Text], random: Random) -> str | None:
    """A supported sentence with a clause that no document says: never trained on."""
    tails = (
        "and writes the result to a log file", "and asks the user for a password",
        "and takes about three minutes", "because the network is slow", "on Windows alone",
        "and then sends an email to the owner", "unless the disk is nearly full",
        "and was removed in the latest release", "as the original authors had planned",
    )  # fmt: skip
    return f"{s.rstrip('.')} {random.choice(tails)}."


HELD_OUT = (quantifier, modality, added)


def fused(a: str, b: str) -> str:
    """Two sentences as one."""
    return f"{a.rstrip('.')}, and {b[:1].lower()}{b[1:]}"


def clause(text: Text, random: Random) -> str | None:
    """The main clause after an opening one, or a clause after `and`, alone: supported, and never
    trained on.
    """
    for s in random.sample(text.sentences, len(text.sentences)):
        found = re.match(r"^(?:In|For|By|As|With|After|Before|On|At)\b[^,]{4,40}, ((?:the|a|an|it|this|all|any|no|each|you)\b.{20,})$", s)  # fmt: skip
        found = found or re.match(r"^.{20,}[,;] (?:and|but) ((?:the|a|an|it|this|all|any|no|each|you)\b.{20,})$", s)  # fmt: skip
        if found is not None:
            return found[1][:1].upper() + found[1][1:]
    return None


def make(texts: list[Text], part: str, seed: int = 0) -> list[Pair]:
    """Pairs of one part: of each passage four supported sentences, one of them made of two, and six
    that are not, two of them made of a supported one and a wrong one; for the test part one more of
    each kind that was never trained on.
    """
    own = [t for t in texts if t.part == part]
    found: list[Pair] = []
    for place, text in enumerate(own):
        random = Random(f"{seed}:{part}:{place}:{text.sentences[0]}")
        others = [t for t in own[max(0, place - 40) : place + 40] if t.sentences != text.sentences]
        document = " ".join(text.sentences)
        made: list[Pair] = []
        for s in random.sample(text.sentences, 3):
            made.append(Pair(document, light(s, random), True, "supported", part))
        a, b = random.sample(text.sentences, 2)
        made.append(Pair(document, fused(light(a, random), light(b, random)), True, "fused", part))
        for s in text.sentences:  # few can be turned so, and a summary often is
            told = passive(s, random)
            if told != s:
                made.append(Pair(document, light(told, random), True, "passive", part))
        kinds = list(TRAINED)
        random.shuffle(kinds)
        count = 0
        for kind in kinds:
            wrong = _wrong(kind, text, others, random)
            if wrong is None or count == 6:
                continue
            count += 1
            if count > 4:
                both = [wrong, light(random.choice(text.sentences), random)]
                random.shuffle(both)
                made.append(Pair(document, fused(*both), False, "fused with a wrong one", part))
            else:
                made.append(Pair(document, wrong, False, kind.__name__, part))
        if part == "test":
            for kind in HELD_OUT:
                wrong = _wrong(kind, text, others, random)
                if wrong is not None:
                    made.append(Pair(document, wrong, False, kind.__name__, part))
            alone = clause(text, random)
            if alone is not None:
                made.append(Pair(document, alone, True, "clause", part))
        found += made
    return found


def _wrong(
    kind: Callable[..., str | None], text: Text, others: list[Text], random: Random
) -> str | None:
    """A sentence that is not supported; changes that keep the meaning are made to it too."""
    for s in random.sample(text.sentences, len(text.sentences)):
        wrong = kind(s, text, others, random)
        if wrong is not None and wrong not in text.sentences and wrong != s:
            return light(wrong, random)
    return None
