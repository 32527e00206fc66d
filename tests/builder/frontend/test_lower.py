"""A Dockerfile to a step graph."""

from __future__ import annotations

from collections.abc import Callable

from builder.frontend.lower import PlanOptions, plan
from builder.frontend.reader import decode
from builder.graph import Exec, Plan, walk
from builder.source import SourceRange
from oci.image import Image
from oci.model import ImageConfig, Platform, RunConfig

AMD64 = Platform("linux", "amd64")


def image(**config: object) -> Image:
    return Image.of(ImageConfig(AMD64, RunConfig(**config)))  # type: ignore[arg-type]


def build(text: str, *, base: Callable[[str], Image] | None = None, **options: object) -> Plan:
    def resolve(reference: str, platform: Platform, at: SourceRange) -> Image:
        return base(reference) if base else image(env=("PATH=/bin",))

    settings = PlanOptions(AMD64, AMD64, **options)  # type: ignore[arg-type]
    return plan(decode(text.encode(), "Dockerfile"), settings, resolve)


def test_a_run_becomes_one_exec_step_with_buildkits_line_of_history() -> None:
    made = build("FROM debian\nARG X=1\nRUN echo hi\n")
    ops = [step.op for step in walk(made.target) if isinstance(step.op, Exec)]
    assert [op.argv for op in ops] == [("/bin/sh", "-c", "echo hi")]
    assert ops[0].env == (("PATH", "/bin"), ("X", "1"))
    assert [each.created_by for each in made.records] == [
        "ARG X=1",
        "RUN |1 X=1 /bin/sh -c echo hi # buildkit",
    ]
