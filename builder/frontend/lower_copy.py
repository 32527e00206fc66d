"""COPY and ADD: where from, where to, and whose the files will be (P12, I21-I28)."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from builder.frontend import instructions as ins
from builder.frontend.broken import broken
from builder.frontend.lower_config import rooted
from builder.frontend.lower_run import LATER
from builder.frontend.scope import unreadable
from builder.frontend.stage import StageBuild
from builder.frontend.words import WordError
from builder.graph import ContextSource, Copy, CopySource, InlineFile, InlineSource, Step, StepSource

if TYPE_CHECKING:
    from builder.frontend.reader import Heredoc
    from builder.source import SourceRange

_URL = re.compile(r"https?://")
_GIT = re.compile(r"git://|ssh://|git@[^/]+:|https?://[^#?]+\.git(?:[#?/]|$)")
_OCTAL = re.compile(r"0*[0-7]{1,4}")
_SYMBOLIC = re.compile(r"[ugoa]*(?:[-+=](?:[rwxXst]*|[ugo]))+")


def copy(stage: StageBuild, line: ins.Copy, origin: Step | str) -> None:
    """`origin` is the step to copy from, or the name of a directory context (empty is the main one)."""
    if line.parents:
        raise broken("COPY --parents is not supported yet", at=line.at, hint=LATER)
    sources = [stage.expand(each, line.at) for each in line.sources]
    for source in sources:
        if _URL.match(source) or _GIT.match(source):
            raise broken(f"COPY cannot fetch `{source}`", at=line.at, hint="ADD takes URLs; COPY takes files")
    _transfer(stage, line, sources, origin, unpack=False)


def add(stage: StageBuild, line: ins.Add) -> None:
    sources = [stage.expand(each, line.at) for each in line.sources]
    for source in sources:
        if _URL.match(source) or _GIT.match(source):
            kind = "a git repository" if _GIT.match(source) else "a URL"
            raise broken(
                f"ADD of {kind} is not supported yet: {source}",
                at=line.at,
                hint=f"{LATER}; until then fetch it in a RUN, or put it into the context",
            )
    if line.checksum:
        raise broken(
            "ADD --checksum needs a URL or a git repository",
            at=line.at,
            hint="a context file has no checksum",
        )
    _transfer(stage, line, sources, "", unpack=line.unpack is not False)


def _transfer(
    stage: StageBuild, line: ins.Copy | ins.Add, sources: list[str], origin: Step | str, *, unpack: bool
) -> None:
    keyword = "ADD" if isinstance(line, ins.Add) else "COPY"
    if line.exclude:
        raise broken(f"{keyword} --exclude is not supported yet", at=line.at, hint=LATER)
    if line.link:
        stage.shared.warn_once(
            "LinkIsOrdinaryCopy",
            f"{keyword} --link copies onto the layers below, like {keyword} without it: "
            "a symbolic link at the destination is followed",
            line.at,
        )
    owner, mode = stage.expand(line.chown, line.at), _mode(stage.expand(line.chmod, line.at), line.at)
    written = stage.expand(line.dest, line.at)
    paths = tuple(_cleaned(each) for each in sources)
    origins, inputs = _origins(stage, line, paths, origin)
    op = Copy(
        sources=origins,
        dest=rooted(stage.config.working_dir, written),
        into_directory=_is_directory(written),
        owner=owner,
        mode=mode,
        unpack=unpack,
    )
    step = stage.add(op, stage.shown(line.code), line.at, *inputs)
    words = [
        keyword,
        *([f"--chown={owner}"] if owner else []),
        *([f"--chmod={mode}"] if mode else []),
        *sources,
        *(f"<<{each.name}" for each in line.documents),
        written,
        "# buildkit",
    ]
    stage.say(" ".join(words), step)


def _origins(
    stage: StageBuild, line: ins.Transfer, paths: tuple[str, ...], origin: Step | str
) -> tuple[tuple[CopySource, ...], tuple[Step, ...]]:
    found: list[CopySource] = []
    inputs: tuple[Step, ...] = ()
    if paths and isinstance(origin, Step):
        found.append(StepSource(paths))
        inputs = (origin,)
    elif paths and isinstance(origin, str):
        found.append(ContextSource(paths, origin))
    if line.documents:
        found.append(InlineSource(tuple(_inline(stage, each, line.at) for each in line.documents)))
    return tuple(found), inputs


def _inline(stage: StageBuild, document: Heredoc, at: SourceRange) -> InlineFile:
    """A heredoc as a file. In its body quotes are text, and a backslash escapes whatever the escape directive
    says.
    """
    text = document.text
    if document.expand:
        try:
            text = stage.shared.lexer.variant(escape="\\", plain_quotes=True).process(text, stage.env).text
        except WordError as error:
            raise unreadable(f"<<{document.name}", error, at) from None
    return InlineFile(document.name, text.encode("utf-8", "surrogateescape"))


def _cleaned(path: str) -> str:
    """A source's path from the root of where it comes from, without leading slash; `.` is the root. `..`
    stays inside.
    """
    return posixpath.normpath(posixpath.join("/", path)).lstrip("/") or "."


def _is_directory(dest: str) -> bool:
    return dest in ("", ".") or dest.endswith(("/", "/."))


def _mode(text: str, at: SourceRange) -> str:
    """`--chmod` as written, checked: octal up to 7777, or symbolic like `u=rwX,go=rX`."""
    if text and not _OCTAL.fullmatch(text) and not all(_SYMBOLIC.fullmatch(each) for each in text.split(",")):
        raise broken(f"--chmod={text} is no mode", at=at, hint="write it like 755, 0644, +x or u=rwX,go=rX")
    return text
