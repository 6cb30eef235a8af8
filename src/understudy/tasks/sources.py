"""The standard library's own source, as text: which modules there are, and of which area each is."""

import hashlib
import os
import sysconfig
from functools import cache
from pathlib import Path

from understudy.errors import DataError

_LEFT_OUT = {
    "site-packages", "dist-packages", "test", "tests", "idle_test", "pydoc_data", "encodings",
    "__pycache__", "__phello__", "lib-dynload",
}  # fmt: skip
"""Folders that hold tests, other people's packages, or tables (of characters, of help texts)."""

AREAS: dict[str, str] = {
    "concurrency": "_threading_local asyncio concurrent multiprocessing queue sched selectors "
    "subprocess threading",
    "internet": "cgi cgitb email ftplib http imaplib mailbox mimetypes nntplib poplib smtpd "
    "smtplib socket socketserver ssl telnetlib urllib webbrowser wsgiref xmlrpc ipaddress",
    "formats": "aifc base64 binhex chunk configparser csv html json netrc plistlib quopri sunau "
    "tomllib uu wave xdrlib xml pickle pickletools copyreg marshal",
    "windows": "curses idlelib tkinter turtle turtledemo cmd getpass readline rlcompleter",
    "language": "_bootlocale _py_abc abc ast codeop code dis importlib inspect lib2to3 linecache "
    "modulefinder opcode pkgutil py_compile compileall pyclbr runpy symtable token tokenize "
    "traceback typing types zipimport _collections_abc symbol _sitebuiltins site",
    "tools": "bdb cProfile distutils doctest ensurepip optparse argparse getopt pdb profile pstats "
    "pydoc tabnanny timeit trace tracemalloc unittest venv logging warnings faulthandler gettext "
    "locale",
    "numbers": "_pydecimal _strptime calendar colorsys datetime decimal fractions numbers random "
    "statistics zoneinfo _pydatetime _pylong bisect heapq hashlib hmac secrets uuid",
    "files": "bz2 dbm fileinput filecmp fnmatch ftplib glob gzip io lzma ntpath os pathlib "
    "posixpath shelve shutil sqlite3 stat tarfile tempfile zipapp zipfile _compression _pyio "
    "genericpath nturl2path",
}
OTHER = "other"
_AREA = {name: area for area, names in AREAS.items() for name in names.split()}


def area(module: str) -> str:
    """The area of a module (`json/decoder`): by its package, or `other`."""
    return _AREA.get(module.partition("/")[0], OTHER)


@cache
def modules() -> dict[str, Path]:
    """Files of the running Python's standard library by module (`json/decoder`), sorted.

    Read, never imported. Left out: tests, other people's packages, generated tables.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, Path] = {}
    for folder, inner, files in os.walk(root):
        inner[:] = [n for n in inner if n not in _LEFT_OUT and not n.startswith("config-")]
        for name in files:
            if name.endswith(".py") and not name.startswith("_sysconfigdata"):
                path = Path(folder, name)
                found[path.relative_to(root).with_suffix("").as_posix()] = path
    if len(found) < 200:
        raise DataError(
            f"the sources of the standard library are not in {root}; install Python with its "
            "sources"
        )
    return dict(sorted(found.items()))


def text(module: str) -> str:
    """A module's source, with line ends as on Unix."""
    return modules()[module].read_text("utf-8", "replace").replace("\r\n", "\n")


def chance(module: str, salt: str = "") -> float:
    """A number in [0, 1) that depends on the module's name alone: the same in every Python."""
    digest = hashlib.sha256(f"{salt}:{module}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
