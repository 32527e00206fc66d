"""Switches with a value, and what is none."""

from __future__ import annotations

import click
import pytest

from builder.cli import group
from builder.cli.switches import plain


def _plain(name: str, *args: str) -> list[str]:
    context = click.Context(group.commands)
    command = group.commands.get_command(context, name)
    assert command is not None
    return plain(command, context, args)


@pytest.mark.parametrize(
    ("name", "written", "meant"),
    [
        ("build", "--no-cache=true --squash=0 -q .", "--no-cache -q ."),
        ("build", ". --no-cache=1", ". --no-cache"),
        ("build", "--rm=false", "--no-rm"),
        ("build", "--no-rm=false", "--rm"),
        ("build", "--label --rm=false -t --squash=1 -qt --push=1", None),
        ("build", "-- --rm=false", None),
        ("run", "--rm=true -e --rm=false image --rm=false", "--rm -e --rm=false image --rm=false"),
        ("run", "-ite --rm=true image --rm=maybe", None),
        ("images", "--no-trunc=T --format --digests=f", "--no-trunc --format --digests=f"),
    ],
)
def test_switches(name: str, written: str, meant: str | None) -> None:
    assert _plain(name, *written.split()) == (meant if meant is not None else written).split()


def test_a_value_that_is_neither() -> None:
    with pytest.raises(click.BadOptionUsage, match="--rm=maybe is neither true nor false"):
        _plain("run", "--rm=maybe", "image")
