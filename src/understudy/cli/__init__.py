"""The command line: `understudy COMMAND`; `understudy --help` lists the commands."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from understudy.cli.parsing import new_parser
from understudy.cli.shared import options_of
from understudy.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code (0 well, 2 wrong input, 130 interrupted)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    given, extra = new_parser().parse_known_args(arguments)
    if given.command is None:
        new_parser().print_help()
        return 0
    given.line = "understudy " + shlex.join(arguments)
    try:
        given.extra = options_of(extra, given)
        given = _resumed(given, arguments)
        return int(given.run(given) or 0)
    except UserError as e:
        if given.debug:
            raise
        print(f"understudy: {' '.join(str(e).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if given.debug:
            raise
        print("understudy: stopped at once; what was saved is whole", file=sys.stderr)
        return 130
    except Exception as e:
        from understudy.training.interrupt import Interrupted

        if not isinstance(e, Interrupted) or given.debug:
            raise
        again = f": understudy {given.command} --out {given.place} --resume"
        print(f"understudy: stopped after saving; go on with{again}", file=sys.stderr)
        return 130
    finally:
        if "understudy.training.distribution" in sys.modules:
            from understudy.training.distribution import leave

            leave()


_FREE = {"out", "resume", "overwrite", "quiet", "debug", "device", "threads", "seeds", "track",
         "budget", "controls", "strategy", "set", "ledger", "concurrency"}  # fmt: skip
"""What a continued run may be given otherwise than it was started with."""


def _resumed(given: Any, arguments: list[str]) -> Any:
    """With --resume, the arguments that the run was started with, and those given now over them."""
    place = _place(given)
    path = None if place is None else place / "config.json"
    if path is None or not path.is_file():
        return given
    try:
        line = json.loads(path.read_text(encoding="utf-8")).get("command") or ""
    except (OSError, ValueError) as e:
        raise UserError(f"{path} cannot be read ({e}): the run cannot be continued") from None
    stored = shlex.split(line)[1:]
    if not stored:
        return given
    if stored[0] != given.command:
        raise UserError(f"{place} is a run of `understudy {stored[0]}`, not of {given.command}")
    before, extra = new_parser().parse_known_args(stored)
    options = options_of(extra, before) | given.extra
    for name, value in _explicit(arguments).items():
        old = getattr(before, name, None)
        if name not in _FREE and value != old:
            flag = name.replace("_", "-")
            was = f"with --{flag} {old}" if old not in (None, False) else f"without --{flag}"
            raise UserError(
                f"{place} was started {was}, and --{flag} {value} is given now; leave it out, or "
                "name another --out"
            )
        setattr(before, name, value)
    line = _amended(shlex.split(line), _explicit(arguments))
    before.extra, before.line, before.out = options, line, str(place)
    return before


def _amended(words: list[str], now: dict[str, Any]) -> str:
    """The command that a continued run now answers to: more seeds than it was started with."""
    for name in ("seeds", "jobs"):
        if name not in now:
            continue
        if (flag := f"--{name}") in words:
            del words[words.index(flag) : words.index(flag) + 2]
        words += [flag, str(now[name])]
    return shlex.join(words)


def _place(given: Any) -> Path | None:
    """The folder that --resume means: the one named, or the newest of the default's name."""
    if not getattr(given, "resume", False) or given.out is None:
        return None
    return Path(given.out)


def _explicit(arguments: list[str]) -> dict[str, Any]:
    """What was said on the command line, without defaults."""
    parser = new_parser()
    choices = next(a.choices for a in parser._actions if isinstance(a.choices, dict))
    for sub in choices.values():
        sub._defaults = {}
        for action in sub._actions:
            action.default = argparse.SUPPRESS
    found = vars(parser.parse_known_args(arguments)[0])
    return {k: v for k, v in found.items() if k not in ("command", "run")}
