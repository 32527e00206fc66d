"""Words with quotes, escapes and variables become what Debian's BuildKit makes of them (P13).

Made-up words are values of LABEL, many in one Dockerfile: Docker builds it, ours plans it, the labels are
equal. `make test` tries 500, `make test-differential` 20,000 (PYBUILD_EXAMPLES). What Docker 20.10 does not
know is left out: operators without a colon, `#`, `%` and `/`.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable

import pytest
from judges.bases import BUSYBOX
from judges.dockerd import Docker

from builder.frontend.lower import PlanOptions, plan
from builder.frontend.reader import decode
from oci.image import Image
from oci.model import ImageConfig, RunConfig
from oci.platforms import host

pytestmark = [pytest.mark.interop, pytest.mark.root]

EXAMPLES = int(os.environ.get("PYBUILD_EXAMPLES", "500"))
LINES = 1000
"""In one Dockerfile."""

SETTINGS = 'ENV A=1 LONG="two words" EMPTY= Q="it\'s" S=\'$A\' _x9=under\nARG G=arg\n'
NAMES = ("A", "LONG", "EMPTY", "Q", "S", "_x9", "G", "UNSET", "A1")
PLAIN = "abzAZ09._/-:@%+,~é{}"


class Words:
    """Words that can be read, made of nested pieces."""

    def __init__(self, seed: object, escape: str) -> None:
        self._random = random.Random(f"{seed}{escape}")
        self._escape = escape

    def word(self, depth: int = 0, braces: bool = False) -> str:
        return "".join(self._piece(depth, braces) for _ in range(self._random.randint(1, 4)))

    def _piece(self, depth: int, braces: bool) -> str:
        pieces: tuple[Callable[[int, bool], str], ...] = (
            self._plain,
            self._plain,
            self._escaped,
            self._single,
            self._double,
            self._name,
            self._name,
            self._braces,
            self._braces,
        )
        return self._random.choice(pieces[: 7 if depth > 3 else 9])(depth, braces)

    def _plain(self, depth: int, braces: bool) -> str:
        return self._random.choice(PLAIN.replace("}", "") if braces else PLAIN)

    def _escaped(self, depth: int, braces: bool) -> str:
        return self._escape + self._random.choice("a$\"'{" + self._escape)

    def _single(self, depth: int, braces: bool) -> str:
        inside = "".join(self._random.choice('a $"{' + "\\`") for _ in range(self._random.randint(0, 3)))
        return f"'{inside}'"

    def _double(self, depth: int, braces: bool) -> str:
        parts = [
            self._random.choice(
                (" ", "b", "'", "$A", "${LONG}", "${UNSET:-x}", f"{self._escape}$", f'{self._escape}"')
            )
            for _ in range(self._random.randint(0, 4))
        ]
        return '"' + "".join(parts) + '"'

    def _name(self, depth: int, braces: bool) -> str:
        return f"${self._random.choice(NAMES)}{self._random.choice(('', '', '.', '/'))}"

    def _braces(self, depth: int, braces: bool) -> str:
        name = self._random.choice(NAMES)
        operator = self._random.choice(("", ":-", ":+", ":-", ":+", ":?"))
        if operator == ":?":
            return f"${{A:?{self.word(depth + 1, True)}}}"
        return f"${{{name}{operator}{self.word(depth + 1, True) if operator else ''}}}"


def _ours(text: str) -> dict[str, str]:
    base = Image.of(ImageConfig(host(), RunConfig(env=("PATH=/bin",))))
    made = plan(decode(text.encode(), "Dockerfile"), PlanOptions(host(), host()), lambda *_: base)
    return dict(made.config.config.labels)


@pytest.mark.parametrize("escape", ["\\", "`"])
def test_words_are_what_docker_makes_of_them(
    docker: Docker, memory_dir: str, busybox_archive: str, escape: str
) -> None:
    docker.run("load", "--input", busybox_archive)
    words = Words(1, escape)
    path = os.path.join(memory_dir, "words")
    os.makedirs(path, exist_ok=True)
    left = EXAMPLES // 2
    while left > 0:
        lines = [f"LABEL w{number}={words.word()}" for number in range(min(LINES, left))]
        left -= len(lines)
        text = f"# escape={escape}\nFROM {BUSYBOX}\n{SETTINGS}" + "\n".join(lines) + "\n"
        with open(os.path.join(path, "Dockerfile"), "w", encoding="utf-8") as file:
            file.write(text)
        docker.run("build", "--network=host", "--tag", "words:1", path)
        shown = docker.run("inspect", "--format", "{{json .Config.Labels}}", "words:1").stdout
        theirs, ours = json.loads(shown), _ours(text)
        differ = [
            (line, theirs.get(key), ours.get(key))
            for line in lines
            if (key := line[6:].partition("=")[0]) and theirs.get(key) != ours.get(key)
        ]
        assert not differ, differ[:5]
        assert len(theirs) == len(lines)
