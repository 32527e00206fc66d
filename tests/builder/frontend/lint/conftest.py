"""Checking a text: what is found, told as (rule, message, line)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from builder.errors import NotFound
from builder.events import Warning_
from builder.frontend.check import Report, check
from builder.frontend.lower import PlanOptions, plan
from builder.frontend.reader import decode
from builder.graph import Plan
from builder.patterns import IgnoreFile
from builder.source import SourceRange
from oci.image import Image
from oci.model import ImageConfig, Platform, RunConfig

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64", "v8")
BASES = {
    "docker.io/library/tool:latest": ImageConfig(ARM64, RunConfig(env=("PATH=/bin",))),
    "docker.io/library/bash:latest": ImageConfig(
        AMD64, RunConfig(shell=("/bin/bash", "-eo", "pipefail", "-c"))
    ),
    "docker.io/library/trigger:latest": ImageConfig(AMD64, RunConfig(on_build=("WORKDIR src", "CMD x"))),
}
"""Bases that are more than an empty image for amd64 that sets BASE_VAR; `missing` is not there."""


@dataclass
class Checker:
    """Checks texts; `said` holds the events of the last build."""

    said: list[Warning_] = field(default_factory=list)

    def resolve(self, reference: str, platform: Platform, at: SourceRange) -> Image:
        if "missing" in reference:
            raise NotFound(f"{reference} is not here", at=at)
        return Image.of(BASES.get(reference, ImageConfig(AMD64, RunConfig(env=("BASE_VAR=1",)))))

    def options(self, ignore: str = "", **more: object) -> PlanOptions:
        options = PlanOptions(AMD64, AMD64, warn=self.said.append)
        if ignore:
            options = replace(options, ignore=lambda: IgnoreFile.parse(ignore))
        return replace(options, **more)  # type: ignore[arg-type]

    def report(self, text: str, **more: object) -> Report:
        """What `--check` finds."""
        return check(decode(text.encode(), "Dockerfile"), self.options(**more), self.resolve)  # type: ignore[arg-type]

    def plan(self, text: str, **more: object) -> Plan:
        """What a build would do; what it warns of is in `said`."""
        self.said.clear()
        return plan(decode(text.encode(), "Dockerfile"), self.options(**more), self.resolve)  # type: ignore[arg-type]

    def __call__(self, text: str, **more: object) -> list[tuple[str, str, int]]:
        """What `--check` finds in a Dockerfile that can be built."""
        report = self.report(text, **more)
        assert report.error is None, report.error
        return [(each.rule.name, each.message, each.at.first) for each in report.findings]

    def of(
        self, rule: str, text: str, args: Mapping[str, str] | None = None, **more: object
    ) -> list[tuple[str, int]]:
        """What one rule finds, experimental or not. Where it is silent, the file can be built."""
        settings = {"BUILDKIT_DOCKERFILE_CHECK": f"experimental={rule}"} | dict(args or {})
        report = self.report(text, build_args=settings, **more)
        found = [(each.message, each.at.first) for each in report.findings if each.rule.name == rule]
        assert found or report.error is None or "not supported yet" in str(report.error), report.error
        return found


@pytest.fixture
def checker() -> Checker:
    return Checker()
