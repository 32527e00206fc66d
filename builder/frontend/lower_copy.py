"""COPY and ADD: where from, where to, and whose the files will be (P12, I21-I28)."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from builder.frontend import instructions as ins
from builder.frontend.broken import broken
from builder.frontend.lower_config import rooted
from builder.frontend.scope import unreadable
from builder.frontend.stage import StageBuild
from builder.frontend.words import WordError
from builder.graph import (
    ContextSource,
    Copy,
    CopySource,
    GitSource,
    HttpSource,
    InlineFile,
    InlineSource,
    Step,
    StepSource,
)

if TYPE_CHECKING:
    from builder.frontend.reader import Heredoc
    from builder.giturl import GitUrl
    from builder.source import SourceRange

_URL = re.compile(r"https?://")
_USERINFO = re.compile(r"(?<=://)[^/\s@]*@")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_IDS = re.compile(r"(?:\d+|root)(?::(?:\d*|root))?|:(?:\d+|root)")  # root is 0 everywhere
_OCTAL = re.compile(r"0*[0-7]{1,4}")
_SYMBOLIC = re.compile(r"[ugoa]*(?:[-+=](?:[rwxXst]*|[ugo]))+")


def copy(stage: StageBuild, line: ins.Copy, origin: Step | str) -> None:
    """`origin` is the step to copy from, or the name of a directory context (empty is the main one)."""
    sources = [stage.expand(each, line.at) for each in line.sources]
    for source in sources:
        if _URL.match(source) or _repository(source, line.at):
            raise broken(f"COPY cannot fetch `{source}`", at=line.at, hint="ADD takes URLs; COPY takes files")
    cleaned = tuple((_pivoted if line.parents else _cleaned)(each) for each in sources)
    found: tuple[CopySource, ...] = ()
    if cleaned:
        found = (StepSource(cleaned) if isinstance(origin, Step) else ContextSource(cleaned, origin),)
    inputs = (origin,) if cleaned and isinstance(origin, Step) else ()
    _transfer(stage, line, sources, found, inputs)


def add(stage: StageBuild, line: ins.Add) -> None:
    """ADD: files and archives of the context, URLs, repositories."""
    sources = [stage.expand(each, line.at) for each in line.sources]
    checksum = stage.expand(line.checksum, line.at)
    found = tuple(_added(line, source, checksum) for source in sources)
    remote = isinstance(found[0], HttpSource | GitSource) if found else False
    if checksum and (len(found) != 1 or not remote):
        raise broken(
            "ADD --checksum needs one URL or git repository, and nothing else",
            at=line.at,
            hint="a context file has no checksum; give each URL an ADD of its own",
        )
    _transfer(stage, line, sources, _joined(found), ())


def _added(line: ins.Add, source: str, checksum: str) -> CopySource:
    git = _repository(source, line.at)
    if git is not None:
        return _git_source(line, git, checksum)
    if line.keep_git_dir and _URL.match(source):
        raise broken(f"--keep-git-dir is for git repositories, and `{source}` is none", at=line.at)
    if _URL.match(source):
        return _http_source(line, source, checksum)
    return ContextSource((_cleaned(source),))


def _git_source(line: ins.Add, git: GitUrl, checksum: str) -> GitSource:
    from builder.giturl import GitUrlError, with_checksum

    keep = line.keep_git_dir
    if keep is not None and git.keep_git_dir is not None and keep is not git.keep_git_dir:
        raise broken("--keep-git-dir and the URL's keep-git-dir contradict each other", at=line.at)
    try:
        return GitSource(with_checksum(git, checksum), bool(keep or git.keep_git_dir))
    except GitUrlError as error:
        raise broken(f"ADD {git}: {error}", at=line.at) from None


def _http_source(line: ins.Add, url: str, checksum: str) -> HttpSource:
    from urllib.parse import unquote, urlsplit

    if checksum and not _DIGEST.fullmatch(checksum):
        raise broken(
            f"--checksum={checksum} is no digest", at=line.at, hint="write sha256: and 64 hex digits"
        )
    try:
        parts = urlsplit(url)
        name = posixpath.basename(posixpath.normpath(unquote(parts.path)))
        known = parts.hostname and parts.port is not False
    except ValueError:
        known = None
    if not known:
        raise broken(f"`{url}` is no URL that can be fetched", at=line.at)
    return HttpSource(url, "" if name in (".", "..") else name, checksum, bool(line.unpack))


def _repository(source: str, at: SourceRange) -> GitUrl | None:
    if ":" not in source:
        return None
    from builder.giturl import GitUrlError, parse

    try:
        return parse(source)
    except GitUrlError as error:
        raise broken(f"{_USERINFO.sub('', source)}: {error}", at=at) from None


def _joined(sources: tuple[CopySource, ...]) -> tuple[CopySource, ...]:
    """`sources` with those of the context that follow each other as one."""
    found: list[CopySource] = []
    for source in sources:
        last = found[-1] if found else None
        if isinstance(source, ContextSource) and isinstance(last, ContextSource):
            found[-1] = ContextSource(last.paths + source.paths)
        else:
            found.append(source)
    return tuple(found)


def _transfer(
    stage: StageBuild,
    line: ins.Copy | ins.Add,
    written: list[str],
    sources: tuple[CopySource, ...],
    inputs: tuple[Step, ...],
) -> None:
    owner, mode = stage.expand(line.chown, line.at), _mode(stage.expand(line.chmod, line.at), line.at)
    if line.link and owner and not _IDS.fullmatch(owner):
        raise broken(
            f"--link reads nothing of the image, so it cannot know who {owner!r} is",
            at=line.at,
            hint="write numbers, like --chown=1000:1000, or leave --link out",
        )
    dest = stage.expand(line.dest, line.at)
    if line.documents:
        sources += (InlineSource(tuple(_inline(stage, each, line.at) for each in line.documents)),)
    op = Copy(
        sources=sources,
        dest=rooted(stage.config.working_dir, dest),
        into_directory=_is_directory(dest),
        owner=owner,
        mode=mode,
        unpack=isinstance(line, ins.Add) and line.unpack is not False,
        link=line.link,
        parents=isinstance(line, ins.Copy) and line.parents,
        exclude=tuple(stage.expand(each, line.at) for each in line.exclude),
        optional=isinstance(line, ins.Copy) and line.if_exists,
    )
    step = stage.add(op, _USERINFO.sub("", stage.shown(line.code)), line.at, *inputs)
    stage.say(_history(line, op, written, dest), step)


def _history(line: ins.Copy | ins.Add, op: Copy, sources: list[str], dest: str) -> str:
    """What history says, as BuildKit words it; passwords in URLs are left out."""
    words = [
        "ADD" if isinstance(line, ins.Add) else "COPY",
        *(["--parents"] if op.parents else []),
        *([f"--chown={op.owner}"] if op.owner else []),
        *([f"--chmod={op.mode}"] if op.mode else []),
        *(_USERINFO.sub("", each) if _URL.match(each) else each for each in sources),
        *(f"<<{each.name}" for each in line.documents),
        dest,
        "# buildkit",
    ]
    return " ".join(words)


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


def _pivoted(path: str) -> str:
    """A source of `--parents`: `<root>/./<pattern>` when it was written so, else the pattern alone."""
    root, pivot, pattern = path.partition("/./")
    if not pivot:
        return _cleaned(root)
    return f"{_cleaned(root)}/./{_cleaned(pattern)}"


def _is_directory(dest: str) -> bool:
    return dest in ("", ".") or dest.endswith(("/", "/."))


def _mode(text: str, at: SourceRange) -> str:
    """`--chmod` as written, checked: octal up to 7777, or symbolic like `u=rwX,go=rX`."""
    if text and not _OCTAL.fullmatch(text) and not all(_SYMBOLIC.fullmatch(each) for each in text.split(",")):
        raise broken(f"--chmod={text} is no mode", at=at, hint="write it like 755, 0644, +x or u=rwX,go=rX")
    return text
