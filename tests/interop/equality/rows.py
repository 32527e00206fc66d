"""Which cases hold which row of the language: how many there are is counted, not claimed.

    python tests/interop/equality/rows.py

Rows are the features of the Dockerfile language; a row that images cannot show names the tests that hold it.
"""

from __future__ import annotations

import fnmatch
import os
import sys
from collections.abc import Mapping, Sequence

if __name__ == "__main__":
    INTEROP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path[:0] = [INTEROP, os.path.join(os.path.dirname(INTEROP), "builder", "contexts")]

from equality.case import Case

ROWS: Mapping[str, tuple[str, ...]] = {
    "P01 comments": ("syntax-comments-*", "fails-unknown-instruction"),
    "P02 white space": ("syntax-tabs-*",),
    "P03 case of keywords": ("syntax-tabs-and-case", "from-no-tag-any-case", "stages-names-any-case"),
    "P04 directives": ("syntax-directive-*", "fails-directive-twice"),
    "P05 # syntax": ("syntax-syntax-*",),
    "P06 # escape": ("syntax-escape-*", "fails-escape-directive"),
    "P07 # check": ("syntax-check-*", "fails-check-error"),
    "P08 byte-order mark, empty continuations": (
        "syntax-byte-order-mark",
        "syntax-comments-*",
        "syntax-windows-*",
    ),
    "P09 JSON or shell form": ("syntax-json-or-shell", "cmd-*", "fails-shell-not-json"),
    "P10 heredocs": ("*heredoc*",),
    "P11 heredocs of RUN": ("run-heredoc*", "fails-run-heredoc-strict"),
    "P12 heredocs of COPY": ("copy-heredoc*",),
    "P13 expansion": ("expand-*", "fails-unclosed-brace"),
    "P14 where expansion happens": ("expand-in-every-instruction", "env-value-frozen-*"),
    "P15 places in errors": ("fails-shows-the-lines", "fails-unknown-instruction"),
    "P16 did you mean": ("fails-suggests-*", "fails-mount-unknown-type"),
    "I01 FROM": ("from-*", "stages-*", "fails-no-from", "fails-from-*", "fails-instruction-before-from"),
    "I02 global ARGs": ("arg-scopes", "from-arg-*"),
    "I03 ARG": ("arg-*",),
    "I04 proxies": ("arg-predefined-proxies",),
    "I05 platform ARGs": ("arg-platform*", "arg-targetstage"),
    "I06 BuildKit's arguments": ("arg-sandbox-hostname", "arg-source-date-epoch", "arg-keep-git-dir"),
    "I07 RUN": ("run-*", "fails-run-*"),
    "I08 ENV": ("env-*", "fails-env-*"),
    "I09 LABEL": ("label-*", "fails-label-*"),
    "I10 MAINTAINER": ("maintainer",),
    "I11 EXPOSE": ("expose-*", "fails-expose-*"),
    "I12 CMD": ("cmd-*",),
    "I13 ENTRYPOINT": ("entrypoint-*",),
    "I14 VOLUME": ("volume-*",),
    "I15 USER": ("user-*", "fails-user-*"),
    "I16 WORKDIR": ("workdir-*",),
    "I17 SHELL": ("shell-*", "fails-shell-*"),
    "I18 STOPSIGNAL": ("stopsignal-*",),
    "I19 HEALTHCHECK": ("healthcheck-*", "fails-healthcheck-*"),
    "I20 ONBUILD": ("onbuild-*", "fails-onbuild-*"),
    "I21 COPY": ("copy-*", "fails-copy-*", "fails-several-*", "fails-missing-source", "fails-*-over-*"),
    "I22 COPY --from": ("copy-from-*", "context-named-*", "fails-copy-from-*"),
    "I23 --chown": ("copy-chown-*", "fails-chown-*"),
    "I24 --chmod": ("copy-chmod-*", "fails-chmod-*"),
    "I25 --link": ("copy-link",),
    "I26 --parents": ("copy-parents*", "fails-copy-parents-*"),
    "I27 --exclude": ("copy-exclude",),
    "I28 ADD of archives": ("add-*archive*", "add-recognises-*", "add-to-*", "add-several-*"),
    "I29 ADD of URLs": ("add-url*", "fails-add-url-*"),
    "I30 ADD of repositories": ("add-repository", "fails-add-repository-*"),
    "I31 --checksum": ("add-url-with-a-checksum", "fails-add-url-checksum"),
    "I32 --unpack, --keep-git-dir": ("add-unpack-*", "add-url-unpack", "add-repository-keep-*"),
    "I33 secrets of ADD": (),
    "I34 bind mounts": ("mount-*", "fails-mount-*"),
    "I35 cache mounts": ("mount-cache*",),
    "I36 tmpfs mounts": ("mount-tmpfs",),
    "I37 secrets": ("mount-secret*", "fails-mount-secret-*"),
    "I38 ssh agents": ("mount-ssh-*",),
    "I39 variables in mounts": ("mount-variables", "fails-mount-from-variable"),
    "I40 RUN --network": ("run-network-none", "fails-run-network-*"),
    "I41 RUN --security": ("run-security-insecure",),
    "I42 RUN --device": ("run-device-*", "fails-run-device-*"),
    "I43 environment of a step": ("run-environment", "run-without-path-*", "run-sees-the-users-home"),
    "I44 what a step sees and leaves": ("run-devices-and-mounts", "run-writes-into-stub-places"),
    "I45 Containerfile": ("containerfile",),
    "C01 only what is needed is read": (),
    "C02 standard input": ("context-text", "context-stdin"),
    "C03 URLs": ("context-url",),
    "C04 repositories": ("context-git*",),
    "C05 named contexts": ("context-named-*",),
    "C07 ignore files": ("ignore-*", "fails-copy-of-an-ignored-file"),
    "C08 Dockerfiles elsewhere": ("dockerfile-*",),
    "C09 names of Dockerfiles": ("containerfile", "from-tag"),
    "C10 --add-host": ("run-add-host",),
    "C11 submodules, .git": ("context-git-has-no-git", "arg-keep-git-dir"),
    "M01 several platforms": ("platforms-*", "targets-for-several-platforms"),
    "M02 foreign programs": (),
    "M03 names of platforms": ("from-platform*",),
    "M05 all platforms kept": ("platforms-*",),
    "D01 INCLUDE": ("include-*", "fails-include-*"),
    "D19 COPY --if-exists": ("copy-if-exists",),
    "D21 ENV --from-file": ("env-from-a-file",),
    "D28 shell-strict": ("*-heredoc-strict",),
}

ELSEWHERE = {
    "I33 secrets of ADD": "tests/root/test_add_remote.py",
    "C01 only what is needed is read": "tests/root/test_contexts.py",
    "M02 foreign programs": "tests/root/test_platforms.py",
}
"""Rows that need a server with passwords, a watch over files or an emulator."""


def held(cases: Sequence[Case], row: str) -> list[str]:
    """The names of the cases that hold a row."""
    return [case.name for case in cases if any(fnmatch.fnmatchcase(case.name, each) for each in ROWS[row])]


def main() -> None:
    from equality.compare import CASES

    for row in ROWS:
        print(f"{len(held(CASES, row)):>4}  {row}{'  -> ' + ELSEWHERE[row] if row in ELSEWHERE else ''}")
    docker = sum(case.reference == "docker" for case in CASES)
    failing = sum(bool(case.fails) for case in CASES)
    print(f"{len(CASES)} cases, {docker} beside Docker, {len(CASES) - docker} golden; {failing} must fail")


if __name__ == "__main__":
    main()
