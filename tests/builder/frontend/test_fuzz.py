"""Any text is a plan or a typed error, soon (SECURITY.md S36)."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import BuildError
from builder.frontend.lower import PlanOptions, plan
from builder.frontend.reader import decode
from builder.graph import Plan
from builder.source import SourceRange
from oci.image import Image
from oci.model import ImageConfig, Platform, RunConfig

AMD64 = Platform("linux", "amd64")
MIB = 1 << 20

_PIECES = [
    *[
        "FROM",
        "ARG",
        "ENV",
        "LABEL",
        "MAINTAINER",
        "EXPOSE",
        "CMD",
        "ENTRYPOINT",
        "VOLUME",
        "USER",
        "WORKDIR",
        "SHELL",
        "STOPSIGNAL",
    ],
    *[
        "HEALTHCHECK",
        "ONBUILD",
        "COPY",
        "ADD",
        "RUN",
        "AS",
        "NONE",
        "scratch",
        "base",
        "$A",
        "${A:-b}",
        "${A#*}",
        "${A/b/c}",
        "<<E",
        "<<-'E'",
        "E",
    ],
    *[
        "--from=",
        "--chown=",
        "--chmod=",
        "--link",
        "--mount=type=bind,",
        "--network=host",
        "--platform=",
        "--interval=1s",
        "--",
    ],
    *[
        '"',
        "'",
        "\\",
        "`",
        "{",
        "}",
        "[",
        "]",
        ",",
        "=",
        ":",
        "/",
        "#",
        "$",
        "${",
        "*",
        "?",
        "+",
        "-",
        ".",
        "..",
        "0",
        "65536",
        '["a","b"]',
        "[1]",
        "é",
        "\udcff",
        "\x85",
        "\x1c",
        "\u2028",
    ],
    *("\n", "\n", "\n", "\r\n", " ", " ", "\t", " \\\n", "# escape=`\n", "# check=x\n", "\ufeff", "\0"),
]
_TEXT = st.lists(st.sampled_from(_PIECES), max_size=25).map("".join)
_BYTES = st.one_of(st.binary(max_size=60), _TEXT.map(lambda text: text.encode("utf-8", "surrogateescape")))


def attempt(content: bytes, triggers: tuple[str, ...] = ()) -> Plan | BuildError:
    image = Image.of(ImageConfig(AMD64, RunConfig(on_build=triggers)))

    def resolve(reference: str, platform: Platform, at: SourceRange) -> Image:
        return image

    options = PlanOptions(AMD64, AMD64, build_args={"A": "b"}, contexts={"ctx": None})
    try:
        return plan(decode(content, "Dockerfile"), options, resolve)
    except BuildError as error:
        assert str(error)
        assert error.at is None or error.at.excerpt()
        return error


@settings(max_examples=300, deadline=30_000)
@given(_BYTES, st.booleans())
def test_any_bytes_are_a_plan_or_an_error(content: bytes, with_from: bool) -> None:
    """SECURITY.md S36."""
    made = attempt(b"FROM a\n" + content if with_from else content)
    if isinstance(made, Plan):
        made.config.to_json()
        "".join(each.created_by for each in made.records).encode()


@settings(max_examples=100, deadline=30_000)
@given(_TEXT.filter(lambda text: "\udcff" not in text))
def test_any_trigger_of_a_base_is_a_plan_or_an_error(trigger: str) -> None:
    attempt(b"FROM a\nRUN x\n", (trigger,))


def _filled(line: str) -> str:
    return "FROM a\n" + line * (MIB // len(line))


LARGE = {
    "many instructions": _filled("RUN x\n"),
    "many variables": "FROM a\n" + "".join(f"ENV a{number}=1\nRUN x\n" for number in range(9_000)),
    "growing variables": "FROM a\nENV a=xxxxxxxx\n" + "ENV a=$a$a\n" * 60,
    "nested variables": "FROM a\nENV a=" + "${a:-" * (MIB // 5),
    "many patterns": "FROM a\nENV a=" + "a" * 50_000 + "\nENV b=${a//" + "*a" * 20_000 + "b/x}",
    "a chain of stages": "FROM a AS s0\n" + "".join(f"FROM s{n} AS s{n + 1}\nRUN x\n" for n in range(9_000)),
    "stages that copy": "FROM a AS s0\n"
    + "".join(f"FROM scratch AS s{n + 1}\nCOPY --from=s{n} a b\n" for n in range(9_000)),
    "many ports": "FROM a\n" + "EXPOSE 1-65535\n" * 1_000,
    "a deep directory": "FROM a\n" + "WORKDIR x\n" * 19_000,
    "deep JSON": "FROM a\nRUN " + "[" * MIB,
    "a long word": "FROM a\nUSER " + "9" * MIB,
    "long quotes": "FROM a\nENV a=" + '"x"' * (MIB // 3),
    "many flags": "FROM a\nRUN " + "--mount=type=bind " * (MIB // 18) + "x",
    "many heredoc words": "FROM a\nRUN " + "<<'a' " * (MIB // 16) + "\n" + "a\n" * (MIB // 16),
    "lines that look like heredocs": _filled("RUN x << y\n"),
    "empty continuations": _filled("RUN x \\\n\n y\n"),
    "one long continuation": "FROM a\nRUN x \\\n" + "\\\n" * (MIB // 2),
    "many sources": "FROM a\nCOPY " + "a " * (MIB // 2) + "/b/",
    "a long mode": "FROM a\nCOPY --chmod=" + "u+" * (MIB // 2) + "z a b",
}


@pytest.mark.parametrize("name", LARGE)
def test_a_megabyte_of_anything_ends_soon(name: str) -> None:
    """SECURITY.md S36."""
    start = time.process_time()
    attempt(LARGE[name].encode())
    assert time.process_time() - start < 30
