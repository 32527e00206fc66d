"""`--secret` and `--ssh` as buildx reads them. The environment is read here and nowhere below."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.secrets import Agent, Secret

_OPTIONS = {
    "id": "id",
    "source": "source",
    "src": "source",
    "env": "env",
    "type": "type",
    "cache-key": "cache-key",
}
_FORM = "write --secret id=NAME,src=FILE or --secret id=NAME,env=VARIABLE"


def secret(text: str) -> Secret:
    """`id=NAME[,src=FILE|,env=VARIABLE][,type=file|env][,cache-key=hash]`.

    With only an id it is the variable of that name, else the file. With `type=env`, `src` names a variable.
    Raises UsageError; what was written is not in its text, for it may be the secret itself.
    """
    from builder.secrets import Secret

    options = _options(text)
    name, path, variable = (options.get(key, "") for key in ("id", "source", "env"))
    kind = options.get("type", "")
    if kind not in ("", "file", "env"):
        raise UsageError("--secret: the type is neither file nor env", hint=_FORM)
    if not name:
        raise UsageError("--secret has no id", hint=_FORM)
    if options.get("cache-key", "hash") != "hash":
        raise UsageError(
            f"--secret id={name}: the cache-key is none that is known",
            hint="write --secret id=NAME,src=FILE,cache-key=hash, or leave it out: no value counts then",
        )
    counts = "cache-key" in options
    if path and variable:
        raise UsageError(f"--secret id={name} is a file and a variable", hint=_FORM)
    if kind == "env":
        path, variable = "", variable or path or name
    elif not path and not variable:
        path, variable = ("", name) if kind != "file" and name in os.environ else (name, "")
    if variable:
        value = os.environb.get(os.fsencode(variable), b"")
        return Secret(name, value=value, counts=counts)
    return Secret(name, path=os.path.abspath(path), counts=counts)


def _options(text: str) -> dict[str, str]:
    import csv

    found = {}
    for field in next(iter(csv.reader([text])), []):
        name, equals, value = field.partition("=")
        full = _OPTIONS.get(name.lower())
        if full is None or not equals:
            raise UsageError(
                "--secret: expected id=, src=, env=, type=, cache-key=, and commas between", hint=_FORM
            )
        found[full] = value
    return found


def agent(text: str) -> Agent:
    """`default` or `NAME[=SOCKET|=KEY[,KEY]]`. Raises UsageError."""
    from builder.secrets import Agent

    name, equals, rest = text.partition("=")
    paths = tuple(os.path.abspath(each) for each in rest.split(",") if each)
    if not name or (equals and not paths):
        raise UsageError(f"--ssh {text!r} is no NAME[=SOCKET|=KEY[,KEY]]", hint="e.g. --ssh default")
    if not paths:
        socket = os.environ.get("SSH_AUTH_SOCK", "")
        if not socket:
            raise UsageError(
                f"--ssh {name}: there is no agent: SSH_AUTH_SOCK is not set",
                hint=f"start one (eval $(ssh-agent)), or name a key: --ssh {name}=FILE",
            )
        paths = (os.path.abspath(socket),)
    return Agent(name, paths)
