"""RUN --mount: what a step sees through each type, told by what it writes down."""

# ruff: noqa: E501  (Dockerfiles and what history says of them are not wrapped)
from __future__ import annotations

from equality.case import Case
from judges.files import Dir, File, Files, Link

_FILES: Files = {
    ".dockerignore": "d/ignored\n",
    "a.txt": "a\n",
    "d": Dir(0o711),
    "d/x": File("x\n", 0o600),
    "d/ignored": "no\n",
    "d/s/y": "y\n",
    "link": Link("d/s"),
    "out": Link("/d/x"),
}
_LOOK = "find /m -exec stat -c '%n %a %u:%g %F' {} + | sort > /seen"

CASES = (
    Case(
        "mount-context",
        f"FROM busybox-test\nRUN --mount=target=/m {_LOOK}; cat /m/a.txt /m/d/x >> /seen; touch /m/new 2>/dev/null || echo ro >> /seen\n",
        files={name: entry for name, entry in _FILES.items() if name != ".dockerignore"},
        stubs=("/m",),
    ),
    Case(
        "mount-context-paths",
        f"FROM busybox-test\nRUN --mount=type=bind,source=d,target=/m {_LOOK}\n"
        "RUN --mount=source=/a.txt,dst=/f --mount=src=link,target=/l --mount=src=../out,target=/o --mount=source=d/../a.txt,target=/g cat /f /l/y /o /g > /read\n",
        files=_FILES,
        stubs=("/m", "/f", "/l", "/o", "/g"),
    ),
    Case(
        "mount-at-the-working-directory",
        "FROM busybox-test\nWORKDIR /w\nRUN --mount=source=d,target=in --mount=source=d/s,target=../up cat in/x /up/y > got\n"
        "RUN --mount=source=d --mount=source=a.txt,target=/f cat x /f > /got\n",
        files=_FILES,
        stubs=("/w/in", "/up", "/f"),
    ),
    Case(
        "mount-written-to",
        "FROM busybox-test\nRUN --mount=target=/m,rw rm /m/a.txt && echo new > /m/n && echo more >> /m/d/x && ls -R /m > /1; cat /m/d/x >> /1\n"
        "RUN --mount=target=/m,readwrite=true ls -R /m > /2; cat /m/d/x >> /2\n",
        files=_FILES,
        stubs=("/m",),
    ),
    Case(
        "mount-stages-and-images",
        "FROM busybox-test AS one\nRUN mkdir -p /o/s && echo f > /o/s/f && chown 5:6 /o/s/f && ln -s /o/s /l && rm /etc/hostname || true\n"
        "FROM busybox-test\n"
        f"RUN --mount=from=one,source=/o,target=/m {_LOOK}\n"
        "RUN --mount=from=one,target=/all --mount=from=one,source=l,target=/l --mount=from=busybox-test,source=/etc/passwd,target=/p cat /all/o/s/f /l/f > /2; cmp /p /etc/passwd && echo same >> /2\n",
        stubs=("/m", "/all", "/l", "/p"),
    ),
    Case(
        "mount-order",
        "FROM busybox-test\nRUN --mount=source=d,target=/m/in --mount=type=tmpfs,target=/m --mount=source=a.txt,target=/m/f cat /m/in/x /m/f > /1; ls /m >> /1\n",
        files=_FILES,
        stubs=("/m",),
    ),
    Case(
        "mount-variables",
        "FROM busybox-test\nENV D=/v S=d\nRUN --mount=source=${S},target=$D/${NONE:-in} cat /v/in/x > /1\n",
        files=_FILES,
        reference="golden",
        tree={"/1": "x\n"},
        why="Docker 20.10 takes variables in mounts literally",
    ),
    Case(
        "mount-cache",
        "FROM busybox-test\nRUN --mount=type=cache,target=/c,id=mount-cache stat -c '%a %u:%g' /c > /1; echo one > /c/f; chmod 700 /c\n"
        "RUN --mount=type=cache,target=/c,id=mount-cache,sharing=locked cat /c/f > /2; stat -c '%a' /c >> /2; echo two >> /c/f\n"
        "RUN --mount=type=cache,target=/d,id=mount-cache,ro cat /d/f > /3; touch /d/x 2>/dev/null || echo ro >> /3\n"
        "RUN --mount=type=cache,target=/c,id=mount-cache,sharing=private cat /c/f > /4\n"
        "RUN --mount=type=cache,target=/mount-cache-5 echo x > /mount-cache-5/f\n"
        "RUN --mount=type=cache,target=/other,id=/mount-cache-5 cat /other/f > /5\n",
        stubs=("/c", "/d", "/mount-cache-5", "/other"),
    ),
    Case(
        "mount-cache-beginnings",
        "FROM busybox-test AS seed\nRUN mkdir -p /s/t && echo f > /s/t/f && chown 7:8 /s/t/f\nFROM busybox-test\n"
        "RUN --mount=type=cache,target=/m,id=mount-cache-b,mode=0750,uid=3,gid=4 stat -c '%a %u:%g' /m > /1; ls -A /m >> /1; touch /m/own\n"
        "RUN --mount=type=cache,target=/m,id=mount-cache-b ls -A /m > /2\n"
        "RUN --mount=type=cache,target=/m,id=mount-cache-b,from=seed,source=/s stat -c '%n %u:%g' /m/t/f > /3; echo g > /m/g\n"
        "RUN --mount=type=cache,target=/m,id=mount-cache-b,from=seed ls /m/s > /4; ls /m >> /4\n",
        stubs=("/m",),
    ),
    Case(
        "mount-tmpfs",
        "FROM busybox-test\nRUN mkdir /t && echo below > /t/f\nRUN --mount=type=tmpfs,target=/t ls -A /t > /1; stat -c '%a %u:%g' /t >> /1; stat -f -c %T /t >> /1; echo gone > /t/x\nRUN ls /t > /2\n"
        "RUN --mount=type=tmpfs,target=/new stat -c '%a %u:%g' /new > /3\n"
        "RUN mkdir -m 2711 /set && chown 5:6 /set\nRUN --mount=type=tmpfs,target=/set stat -c '%a %u:%g' /set > /4\n",
        stubs=("/new",),
    ),
    Case(
        "mount-secret",
        "FROM busybox-test\n"
        "RUN --mount=type=secret,id=s stat -c '%n %a %u:%g %F' /run/secrets/s > /1; cat /run/secrets/s >> /1; ls /run/secrets >> /1\n"
        "RUN --mount=type=secret,id=s,target=/x/y,mode=0444,uid=5,gid=6 stat -c '%n %a %u:%g' /x/y > /2\n"
        "RUN --mount=type=secret,target=/x/s,required cat /x/s > /3\n"
        "RUN --mount=type=secret,id=none ls /run/secrets | wc -l > /4 2>/dev/null\n"
        "RUN --mount=type=secret,id=s echo x 2>/dev/null > /run/secrets/s || echo ro > /5\n",
        beside={"lent": {"s": "of no value\n"}},
        args=("--secret", "id=s,src={lent}/s"),
        stubs=("/run", "/run/secrets", "/x"),
    ),
    Case(
        "mount-secret-for-a-user",
        "FROM busybox-test\nUSER app\nRUN --mount=type=secret,id=s cat /run/secrets/s > /tmp/1 2>/dev/null || echo no > /tmp/1\n"
        "RUN --mount=type=secret,id=s,mode=0444 cat /run/secrets/s > /tmp/2\n",
        beside={"lent": {"s": "of no value\n"}},
        args=("--secret", "id=s,src={lent}/s"),
        stubs=("/run", "/run/secrets"),
    ),
    Case(
        "mount-ssh-not-given",
        "FROM busybox-test\nRUN --mount=type=ssh test ! -e /run/buildkit/ssh_agent.0 && echo none > /1\n",
        stubs=("/run", "/run/buildkit"),
    ),
    Case(
        "mount-points-that-are-there",
        "FROM busybox-test\nRUN mkdir -m 700 /m && chown 5:6 /m && touch -d @1000000000 /m/f /m && mkdir -p /run/secrets && touch -d @1000000000 /run/secrets\n"
        "RUN --mount=target=/m --mount=type=secret,id=s true\nRUN stat -c '%a %u:%g %Y' /m /run/secrets > /1; ls -A /m >> /1\n",
        files=_FILES,
    ),
    Case(
        "fails-mount-missing",
        "FROM busybox-test\nRUN --mount=source=gone,target=/m true\n",
        files=_FILES,
        fails=r"gone[\s\S]*(not found|not in the context)|(not found|not in the context)[\s\S]*gone",
    ),
    Case(
        "fails-mount-from-variable",
        "FROM busybox-test\nARG A=one\nRUN --mount=from=$A,target=/m true\n",
        fails=r"[Dd]ockerfile:3|variable",
    ),
    Case(
        "fails-mount-at-root",
        "FROM busybox-test\nRUN --mount=target=/ true\n",
        fails=r"mount",
    ),
    Case(
        "fails-mount-secret-required",
        "FROM busybox-test\nRUN --mount=type=secret,id=gone,required=true true\n",
        fails=r"gone",
    ),
)
