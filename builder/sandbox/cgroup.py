"""Cgroups for the steps of a build: one that bounds the build, and below it one for each step.

Version 2, version 1 and both at once are the same to callers: for each controller that limits need, the
hierarchy is found that has it. A step is born in its cgroup of the unified hierarchy, and enters the others
by itself before it does anything else (`builder.sandbox.bounds`). Where nothing is limited, not by
default either, nothing of this is loaded.

A build's cgroup lies below the one that the builder itself is in, so that what limits the builder limits the
steps too. In the unified hierarchy a cgroup with processes cannot have children that are limited: there the
builder, when it is alone there with its children, moves to a leaf of its own; a cgroup that was not delegated
to it is left alone, and root's builds lie at the top.
"""

from __future__ import annotations

import errno
import itertools
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from builder.sandbox.cgroup_files import Write, controllers, writes
from builder.sandbox.cgroup_tree import (
    Hierarchy,
    count,
    delegated,
    descends,
    enable,
    hierarchies,
    number,
    remove,
    system_root,
    text,
    words,
    write,
)
from builder.sandbox.spec import Limits, Membership, Used

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


LEAF = "pybuild-self"
_V1_NAMES = {"io": "blkio"}
_NOT_HERE = (errno.EACCES, errno.EPERM, errno.EROFS)


class NotEnforceable(Exception):
    """A limit that cannot be had here: the option, why, and `hint`, what to do."""

    def __init__(self, option: str, why: str, hint: str = "") -> None:
        super().__init__(f"{option}: {why}")
        self.option = option
        self.hint = hint


class Groups:
    """The cgroups of one build. Use it in `with`; the limits hold from its beginning on.

    `limits` bound all steps together, `each` every single one. `parent` is a cgroup below which all lies
    (made when missing), in each hierarchy that lets us, whatever limits there are. `name` must be nobody
    else's. `refuse` is told of every limit that cannot be had; if it returns, that limit is left out.
    `remember` is told of all directories before they are made, so that another process can remove what a
    killed one left (`cgroup_tree.remove`).
    """

    def __init__(
        self,
        name: str,
        limits: Limits,
        each: Limits,
        *,
        parent: str = "",
        refuse: Callable[[NotEnforceable], None],
        remember: Callable[[list[str]], None] = lambda paths: None,
        mounted: list[Hierarchy] | None = None,
    ) -> None:
        self.limits = limits
        self.each = each
        self._name = name
        self._parent = parent
        self._refuse = refuse
        self._remember = remember
        self._mounted = mounted
        self._places: list[_Place] = []
        self._numbers = itertools.count(1)  # threads share it

    def __enter__(self) -> Groups:
        try:
            self._places = self._found()
            for place in list(self._places):
                self._begin(place)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the directories. Every process in them has ended."""
        for place in self._places:
            place.remove()
        self._places.clear()

    @contextmanager
    def step(self) -> Iterator[StepGroup]:
        """Cgroups for one step, gone when the block ends. Raises NotEnforceable, OSError."""
        name = str(next(self._numbers))
        paths = [each.directory if self._flat(each) else f"{each.directory}/{name}" for each in self._places]
        group = StepGroup(list(zip(self._places, paths, strict=True)))
        own = [(place, path) for place, path in group.places if path != place.directory]
        try:
            for place, path in own:
                os.mkdir(path)
                self._fill(place, path, self.each)
            group.open()
            yield group
        finally:
            group.close()
            for _, path in own:
                remove(path)

    def _flat(self, place: _Place) -> bool:
        """Whether a build's limits would not hold below its cgroup: so it is for devices in version 1, where
        the steps are in the build's own.
        """
        return "blkio" in place.here.controllers and any(
            each.controller == "io" for each in writes(self.limits, place.here.version)
        )

    def _found(self) -> list[_Place]:
        """A place for each hierarchy that is needed, with the controllers needed of it."""
        mounted = hierarchies() if self._mounted is None else self._mounted
        needed = controllers(self.each) | controllers(self.limits)
        places: dict[str, _Place] = {}
        for controller, option in needed.items():
            try:
                here, parent = self._where(controller, option, mounted)
            except NotEnforceable as error:
                self._refuse(error)
                continue
            place = places.setdefault(here.mount, _Place(here, parent, self._name))
            place.controllers.append(controller)
        if self._parent:
            for here in mounted:
                if here.version == 2 or not all(name.startswith("name=") for name in here.controllers):
                    parent = self._parent_in(here)
                    places.setdefault(here.mount, _Place(here, parent, self._name))
        return list(places.values())

    def _where(self, controller: str, option: str, mounted: list[Hierarchy]) -> tuple[Hierarchy, str]:
        for here in mounted:
            if here.version == 2:
                parent = self._parent_in(here)
                if controller in words(here.mount if self._parent else parent, "cgroup.controllers"):
                    return here, parent
            elif _V1_NAMES.get(controller, controller) in here.controllers:
                return here, self._parent_in(here)
        why = f"there is no cgroup controller for {controller} here"
        if not mounted:
            why = "no cgroups are mounted here"
        elif not system_root():
            why = f"the {controller} controller is not delegated to this user"
        raise NotEnforceable(option, why, _HINT_ROOT if system_root() else _HINT_USER)

    def _parent_in(self, here: Hierarchy) -> str:
        if self._parent:
            return os.path.join(here.mount, self._parent.strip("/"))
        if here.version == 2 and system_root() and not delegated(here.own):
            return here.mount
        return here.own

    def _begin(self, place: _Place) -> None:
        """Make the build's cgroup in one hierarchy, and try what every step will need."""
        try:
            for last in (False, False, True):
                try:
                    self._make(place)
                    break
                except FileNotFoundError:  # another build took its parent away just now
                    if last:
                        raise
        except OSError as error:
            self._places.remove(place)
            place.remove()
            named = controllers(self.limits) | controllers(self.each)
            for controller in place.controllers:
                self._refuse(_cannot(named[controller], place, error))
            if self._parent and not self._places:
                self._refuse(_cannot("--cgroup-parent", place, error))
            return
        self._fill(place, place.directory, self.limits)
        if place.here.version == 2:
            enable(place.directory, place.controllers)
        if not writes(self.each, place.here.version):
            return
        if self._flat(place):
            wanted = [each for each in writes(self.each, 1) if each.controller == "io"]
            for each in wanted:
                why = (
                    "cgroups of version 1 bound a device for all steps together or for each of them, not both"
                )
                self._refuse(NotEnforceable(each.option, why, "leave out one of the two"))
            return
        trial = os.path.join(place.directory, "trial")
        os.mkdir(trial)
        try:
            self._fill(place, trial, self.each)
        finally:
            remove(trial)

    def _make(self, place: _Place) -> None:
        top = place.here.mount
        path = [place.parent]
        while path[-1] != top:
            path.append(os.path.dirname(path[-1]))
        place.made = [place.directory, *(each for each in path if not os.path.isdir(each))]
        self._remember(place.made)
        for each in reversed(path):
            if each in place.made:
                with suppress(FileExistsError):
                    os.mkdir(each)
            self._ready(place, each)
        os.mkdir(place.directory)

    def _ready(self, place: _Place, path: str) -> None:
        """Have children of `path` get the controllers they need."""
        if place.here.version == 1:
            self._inherit(place, path)
            return
        missing = [name for name in place.controllers if name not in words(path, "cgroup.subtree_control")]
        if missing and os.path.exists(os.path.join(path, "cgroup.type")):
            self._vacate(path)
        enable(path, missing)

    def _vacate(self, path: str) -> None:
        """Move our own processes down, so that none is beside children with controllers. EBUSY if others are.

        The kernel refuses that for memory and io alone. With cpu, cpuset or pids it makes `path` a threaded
        domain without a word, whose children can hold no process (EOPNOTSUPP). The root, which has no type,
        may hold processes.
        """
        inside = [int(word) for word in words(path, "cgroup.procs")]
        if not inside:
            return
        if not all(descends(pid, os.getpid()) for pid in inside):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)
        leaf = os.path.join(path, LEAF)
        self._remember([leaf])
        with suppress(FileExistsError):
            os.mkdir(leaf)
        for pid in inside:
            with suppress(ProcessLookupError):
                write(leaf, "cgroup.procs", str(pid))

    def _inherit(self, place: _Place, path: str) -> None:
        """A new cpuset of version 1 is empty, and nothing can enter it before it has both."""
        if "cpuset" not in place.here.controllers:
            return
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not words(path, name):
                write(path, name, text(os.path.join(os.path.dirname(path), name)).strip())

    def _fill(self, place: _Place, path: str, limits: Limits) -> None:
        """Write the limits of this place's controllers that were not refused before."""
        self._inherit(place, path)
        for each in writes(limits, place.here.version):
            if each.controller not in place.controllers or (each.option, each.value) in place.refused:
                continue
            try:
                _set(path, each)
            except OSError as error:
                if each.optional and error.errno == errno.ENOENT:
                    continue
                place.refused.add((each.option, each.value))
                self._refuse(_cannot(each.option, place, error, each))


def unavailable(controller: str) -> tuple[str, str]:
    """Why limits of a controller cannot be enforced here, and what to do; two empty strings when they can.

    Only looked at: whether there is a hierarchy, and whether a cgroup may be made in it.
    """
    refused: list[NotEnforceable] = []
    groups = Groups("", Limits(), Limits(), refuse=refused.append)
    try:
        _, parent = groups._where(controller, controller, hierarchies())
    except NotEnforceable as error:
        return str(error).removeprefix(f"{controller}: "), error.hint
    if os.access(parent, os.W_OK | os.X_OK):
        return "", ""
    return "no cgroup may be made here", _HINT_ROOT if system_root() else _HINT_USER


class _Place:
    """A build's cgroup in one hierarchy."""

    __slots__ = ("controllers", "directory", "here", "made", "parent", "refused")

    def __init__(self, here: Hierarchy, parent: str, name: str) -> None:
        self.here = here
        self.parent = parent
        self.directory = os.path.join(parent, name)
        self.controllers: list[str] = []
        self.made: list[str] = []
        self.refused: set[tuple[str, str]] = set()

    def remove(self) -> None:
        """Take away what was made. A parent that others use by now stays."""
        for path in self.made:
            remove(path)


class StepGroup:
    """The cgroups of one step. Made by `Groups.step`."""

    def __init__(self, places: list[tuple[_Place, str]]) -> None:
        self.places = places
        self._fds: list[int] = []
        self._before: list[int] = []
        self.membership = Membership()

    def open(self) -> None:
        """What the launcher needs to put a process into them."""
        unified, tasks = -1, []
        for place, path in self.places:
            if place.here.version == 2:
                unified = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._fds.append(unified)
            else:
                fd = os.open(os.path.join(path, "tasks"), os.O_WRONLY | os.O_CLOEXEC)
                self._fds.append(fd)
                tasks.append(fd)
        self._before = [count(place.directory, "pids.events", "max") for place, _ in self.places]
        self.membership = Membership(unified, tuple(tasks))

    def close(self) -> None:
        """Let go of what `open` opened."""
        while self._fds:
            os.close(self._fds.pop())

    def used(self) -> Used:
        """What was seen until now; what the kernel does not tell is 0."""
        memory = kills = refused = 0
        for (place, path), before in zip(self.places, self._before, strict=True):
            peak, events = (
                ("memory.peak", "memory.events")
                if place.here.version == 2
                else ("memory.max_usage_in_bytes", "memory.oom_control")
            )
            memory = max(memory, number(path, peak))
            kills += count(path, events, "oom_kill")
            # Version 2 counts where the limit is that was met: the build's, perhaps.
            above = count(place.directory, "pids.events", "max") - before
            refused += max(count(path, "pids.events", "max"), above)
        return Used(memory, kills, refused)


_HINT_ROOT = (
    "leave the limit out, mount cgroups with that controller, or take what there is with --best-effort"
)
_HINT_USER = (
    "build as root, in a scope that systemd delegates (systemd-run --user --scope -p Delegate=yes) or below "
    "a cgroup of your own (--cgroup-parent), or take what there is with --best-effort"
)


def _cannot(option: str, place: _Place, error: OSError, wanted: Write | None = None) -> NotEnforceable:
    if error.errno in _NOT_HERE:
        return NotEnforceable(
            option, f"cgroups below {place.parent} may not be made or written by this user", _HINT_USER
        )
    if wanted is None:
        if error.errno == errno.EBUSY:
            return NotEnforceable(
                option,
                f"the cgroup {place.parent} holds other processes too, so that none below it can be limited",
                "name another with --cgroup-parent, or take what there is with --best-effort",
            )
        return NotEnforceable(option, f"no cgroup can be made below {place.parent}: {error.strerror}")
    if error.errno == errno.ENOENT:
        return NotEnforceable(option, f"this kernel has no {' or '.join(wanted.files)}", _HINT_ROOT)
    if error.errno == errno.ENODEV:
        return NotEnforceable(option, f"{wanted.value.split(' ', 1)[0]} is no whole disk that can be limited")
    return NotEnforceable(
        option,
        f"the kernel refuses {wanted.value!r} in {wanted.files[0]}: {error.strerror}",
        "is it more than this machine, or than the build may have altogether?",
    )


def _set(path: str, wanted: Write) -> None:
    for tried, name in enumerate(wanted.files, 1):
        try:
            write(path, name, wanted.value)
            return
        except FileNotFoundError:
            if tried == len(wanted.files):
                raise
