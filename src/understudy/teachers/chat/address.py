"""Where an endpoint is and what its key is called: checked, and never said again where it may be a key."""

import ipaddress
import os
import re
from urllib.parse import urlsplit

from understudy.errors import UserError

_PORTS = {"http": 80, "https": 443}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_KEY = re.compile(r"(?:\b|_)(?:sk-|sk_|hf_|gsk_|xai-|ghp_|pplx-|AIza|Bearer\s)[A-Za-z0-9_\-.]{8,}")
"""What well-known keys begin with."""


def address(base_url: str) -> str:
    """An address in its one form: scheme and host in small letters, no default port, no last slash.

    Raises:
        UserError: no http(s) address, or one that carries credentials, a query or a key; a part
            that may be a secret is not repeated.
    """
    if not isinstance(base_url, str):
        raise UserError(f"the base URL is text, not {type(base_url).__name__}")
    text = base_url.strip()
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UserError("the base URL is no address; it is like http://localhost:8000/v1") from None
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise UserError(
            "the base URL holds credentials; take them out, put the key into an environment "
            "variable and give its name (key_env, --key-env)"
        )
    if parts.query or parts.fragment or _KEY.search(text):
        raise UserError(
            "the base URL is an address alone, without a query and without a key; a key goes into "
            "an environment variable, and its name is given (key_env, --key-env)"
        )
    if parts.scheme.lower() not in _PORTS or not host:
        raise UserError(
            f"the base URL begins with http:// or https:// and names a host, unlike {text[:80]!r}"
        )
    scheme = parts.scheme.lower()
    named = f"[{host}]" if ":" in host else host
    ending = "" if port in (None, _PORTS[scheme]) else f":{port}"
    return f"{scheme}://{named}{ending}{parts.path.rstrip('/')}"


def key_name(key_env: str | None) -> str | None:
    """The name of an environment variable, or None.

    Raises:
        UserError: what is given is no name, or looks like the key itself; it is not repeated.
    """
    if key_env is None:
        return None
    fine = isinstance(key_env, str) and _NAME.match(key_env) and not _KEY.match(key_env)
    if not fine or not (key_env in os.environ or _usual(key_env)):
        raise UserError(
            "key_env is the NAME of an environment variable that holds the key, such as "
            "OPENAI_API_KEY; what is given is no such name (it is not repeated here, in case it is "
            "the key)"
        )
    return key_env


def key(key_env: str | None) -> str | None:
    """The key itself, read now.

    Raises:
        UserError: the variable is not set, empty, or of more than one line.
    """
    if key_env is None:
        return None
    found = os.environ.get(key_env, "").strip()
    if not found:
        raise UserError(f"the environment variable {key_env} holds no key; set it, or name another")
    if not found.isprintable() or not found.isascii():
        raise UserError(f"the environment variable {key_env} holds something that is no key")
    return found


def loopback(base_url: str) -> bool:
    """Whether an address is this machine's own."""
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _usual(name: str) -> bool:
    """As such names are written: capitals, and words or no digits; a key of capitals is not."""
    return name.isupper() and len(name) <= 64 and ("_" in name or not re.search(r"\d", name))
