"""Dockerfiles that cannot be built."""

from __future__ import annotations

from bad_input.case import Case
from bad_input.laying import files


def _case(name: str, text: str, says: tuple[str, ...], check: str) -> Case:
    return Case(name, files({"Dockerfile": text, "a": "content\n"}), ("build", "."), says, check)


CASES = (
    _case(
        "unknown-instruction",
        "FROM busybox\nRUNN true\n",
        ("Dockerfile:2: unknown instruction `RUNN`", ">>> RUNN true", "did you mean RUN?"),
        "unknown instruction `",
    ),
    _case(
        "nothing-to-build-on",
        "# a comment\nCOPY a /a\nFROM busybox\n",
        ("Dockerfile:2: COPY stands before the first FROM", ">>> COPY a /a", "begin with `FROM <image>`"),
        "stands before the first FROM",
    ),
    _case(
        "heredoc-never-closed",
        "FROM busybox\nRUN <<END\necho a\necho b\n",
        ("Dockerfile:2", "`<<END` is never closed", "a line that holds only `END` ends it"),
        "is never closed",
    ),
    _case(
        "escape-directive",
        "# escape=x\nFROM busybox\n",
        ("Dockerfile:1: `x` cannot be the escape character", ">>> # escape=x", "hint: write"),
        "cannot be the escape character",
    ),
    _case(
        "env-without-value",
        "FROM busybox\n\nENV NAME\n",
        ("Dockerfile:3: ENV `NAME` has no value", ">>> ENV NAME", "write `ENV NAME=value`"),
        "has no value",
    ),
    _case(
        "unknown-flag",
        "FROM busybox\nCOPY --form=busybox /bin/busybox /b\n",
        ("Dockerfile:2: COPY has no flag --form", ">>> COPY --form", "did you mean --from?"),
        "_unknown_flag(name, known)",
    ),
    _case(
        "bad-substitution",
        "FROM busybox\nWORKDIR /\\\n  ${}\n",
        ("Dockerfile:2", ">>>   ${}", "bad substitution `${}`", "a name must follow"),
        "bad substitution",
    ),
    _case(
        "port-out-of-range",
        "FROM busybox\nEXPOSE 80 99999/tcp\n",
        ("Dockerfile:2: EXPOSE 99999/tcp: `99999` is no port", "a number up to 65535"),
        "is no port",
    ),
    _case(
        "copy-from-itself",
        "FROM busybox AS one\nCOPY --from=one /bin/busybox /b\n",
        ("Dockerfile:2: COPY --from=one copies from its own stage", "a stage reads earlier ones"),
        "from its own stage",
    ),
)
