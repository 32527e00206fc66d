"""RUN: its forms, its surroundings, and every way a step can change a file tree."""

# ruff: noqa: E501  (Dockerfiles and what history says of them are not wrapped)
from __future__ import annotations

from equality.case import Case
from judges.bases import PATH, TOOLS
from judges.files import GONE, Dir, File, Hard, Link

CASES = (
    Case(
        "run-forms",
        """\
FROM busybox-test
RUN echo shell "$HOME" > /1
RUN ["/bin/sh", "-c", "echo exec $0 $1 > /2", "zero", "one two"]
RUN ["touch", "/$HOME", "/a b"]
RUN ['not json'] || echo shell > /3
RUN echo one; \\
    echo two > /4
""",
    ),
    Case(
        "run-environment",
        """\
FROM busybox-test
ENV A="a b" B=
ARG C=c
RUN env | grep -v HOSTNAME | sort > /root-env; pwd >> /root-env; umask >> /root-env
WORKDIR /w
USER app
RUN env | grep -v HOSTNAME | sort > /tmp/app-env; pwd >> /tmp/app-env; tty >> /tmp/app-env; cat | wc -c >> /tmp/app-env
""",
    ),
    Case(
        "run-without-path-in-the-config",
        "FROM scratch\nCOPY --from=busybox-test /bin /bin\nRUN env | grep PATH > /path; echo $HOME >> /path\n",
        base="scratch",
        stubs=("/dev", "/etc", "/proc", "/sys"),
    ),
    Case(
        "run-capabilities-of-a-step",
        """\
FROM busybox-test
RUN grep -E '^(Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs):' /proc/self/status > /root-status
USER app
RUN grep -E '^(Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs):' /proc/self/status > /tmp/app-status
""",
    ),
    Case(
        "run-devices-and-mounts",
        """\
FROM busybox-test
RUN cd /dev && for n in null zero full random urandom tty; do stat -c '%n %a %u:%g %t,%T %F' $n; done > /nodes; \\
    stat -c '%N' fd stdin stdout stderr ptmx >> /nodes; stat -c '%n %a' shm mqueue pts >> /nodes; \\
    awk '$2 !~ "^/(sys|proc)/" && $2 != "/" && $3 != "devtmpfs" {print $2, $3}' /proc/mounts | grep -vE 'etc/(hosts|resolv.conf)' | sort >> /nodes
RUN echo gone > /dev/shm/x; echo gone > /dev/made; (echo x > /sys/kernel/x; echo x > /proc/sys/kernel/hostname) 2> /dev/null; \\
    (echo x >> /etc/hosts) 2> /dev/null || echo read-only > /hosts-are
""",
    ),
    Case(
        "run-deletes",
        """\
FROM busybox-test
RUN rm /etc/motd /opt/dirlink /opt/dir/a
RUN rm -r /opt/dir
RUN rm -rf /home /srv && mkdir /srv && echo back > /etc/motd
RUN rm /opt/one
""",
    ),
    Case(
        "run-renames",
        """\
FROM busybox-test
RUN mv /etc/motd /etc/renamed && mv /opt/dir /opt/moved && mv /opt/dirlink /opt/l2
RUN mv /opt/moved/deep /deep && mv /opt/moved /opt/dir
RUN mv /opt/one /opt/three
RUN mv -T /home /usr/home && ln -s usr/home /home
""",
    ),
    Case(
        "run-owners-and-modes",
        """\
FROM busybox-test
RUN chown app:web /opt/dir && chown -R 33 /home && chown -h web /opt/filelink && chmod 0 /etc/motd
RUN chmod 4711 /bin/busybox && chmod 1777 /opt && chmod g+s /srv && chown app /opt/setuid
RUN chmod 600 /opt/one
""",
    ),
    Case(
        "run-replaces-types",
        """\
FROM busybox-test
RUN rm -r /opt/dir && echo 'a file now' > /opt/dir
RUN rm /etc/motd && mkdir -p /etc/motd/sub && echo x > /etc/motd/sub/x
RUN rm -r /home && ln -s /opt /home
RUN rm /opt/dirlink && mkdir /opt/dirlink && echo y > /opt/dirlink/y
RUN rm -r /opt/dirlink && mkfifo /opt/dirlink
RUN rm /opt/dir && mkdir /opt/dir && echo z > /opt/dir/z
""",
    ),
    Case(
        "run-recreates-directories",
        """\
FROM busybox-test
RUN rm -r /opt/dir && mkdir /opt/dir && touch /opt/dir/only
RUN rm -r /opt/dir && mkdir -p /opt/dir/deep && touch /opt/dir/deep/again
RUN rm -r /opt && mkdir /opt
RUN mkdir /opt/dir && echo a > /opt/dir/a
""",
    ),
    Case(
        "run-hard-links",
        """\
FROM busybox-test
RUN echo x > /1 && ln /1 /2 && mkdir /d && ln /2 /d/3
RUN ln /opt/one /opt/dir/three
RUN echo more >> /1
RUN rm /opt/two
RUN ln -s /1 /s && ln /s /s2
""",
    ),
    Case(
        "run-special-files",
        """\
FROM busybox-test
RUN mknod /c c 1 3 && mknod -m 660 /b b 7 1 && mknod /wide c 300 70000 && mkfifo -m 622 /p
RUN chown app /p && rm /b && ln /c /c2
RUN echo x > /suid && chmod 6755 /suid && chown 1000:33 /suid && chmod 6755 /suid
""",
    ),
    Case(
        "run-capabilities-on-files",
        """\
FROM tools-test
RUN cp /bin/busybox /ping && setcap cap_net_raw,cap_net_bind_service+ep /ping && getcap /ping > /said
RUN cp /ping /lost && chown app /lost; ln /ping /ping2
""",
        base=TOOLS,
    ),
    Case(
        "run-extended-attributes",
        """\
FROM tools-test
RUN echo x > /f && mkdir /d && setfattr -n user.note -v 'some text' /f && setfattr -n user.bin -v 0x00ff0a /d
RUN setfattr -n user.more -v 2 /f
""",
        base=TOOLS,
        reference="golden",
        why="20.10 keeps only security.capability; image-spec's layers carry all extended attributes",
        tree={
            "/f": File("x\n", xattrs={"user.note": b"some text", "user.more": b"2"}),
            "/d": Dir(xattrs={"user.bin": b"\x00\xff\x0a"}),
        },
        config={},
    ),
    Case(
        "run-nothing-changes",
        "FROM busybox-test\nRUN true\nRUN echo out; echo err >&2\nRUN echo x > /x && rm /x\nRUN cat /etc/passwd\n",
        tree={},
    ),
    Case(
        "run-touches-only",
        "FROM busybox-test\nRUN touch -d '2001-02-03 04:05:06' /etc/motd /opt/dir && chmod 644 /etc/motd\n",
        tree={},
    ),
    Case(
        "run-odd-names",
        r"""FROM busybox-test
RUN mkdir /odd && cd /odd && touch -- 'with blank' "$(printf 'new\nline')" ünïcode '*' '?' '"' "'" '\' ' ' '-rf' '#' '.wh' wh.
RUN cd /odd && touch "$(printf 'caf\351')" "$(printf 'tab\there')" "$(printf 'n%.0s' $(seq 200))" "$(printf 'é%.0s' $(seq 100))"
RUN cd /odd && rm -- ünïcode '*' "$(printf 'new\nline')" "$(printf 'n%.0s' $(seq 200))" -rf
RUN cd /odd && d=$(printf 'p%.0s' $(seq 120)) && mkdir -p $d/$d/$d && touch $d/$d/$d/end && ln -s $d/$d/$d/end link
""",
    ),
    Case(
        "run-sparse-and-large",
        "FROM busybox-test\nRUN truncate -s 20M /sparse && echo end >> /sparse && dd if=/dev/zero of=/z bs=1M count=3 2> /dev/null\n",
    ),
    Case(
        "run-large-ids",
        "FROM busybox-test\nRUN touch /a /b && chown 3000000:4000000 /a && chown 4294967294:2097152 /b && mkdir /d && chown 2097151 /d\n",
    ),
    Case(
        "run-many-files-then-some-gone",
        """\
FROM busybox-test
RUN mkdir /m && cd /m && for i in $(seq 300); do echo $i > f$i; done
RUN cd /m && rm f1* && mkdir sub && mv f2* sub/
RUN rm -r /m/sub && echo new > /m/f1
""",
    ),
    Case(
        "run-leftover-processes-die",
        "FROM busybox-test\nRUN (sleep 30; echo late > /late) & echo started > /started\n",
        tree={"/started": "started\n"},
    ),
    Case(
        "run-writes-into-stub-places",
        """\
FROM busybox-test
RUN mkdir -p /dev/x /run && echo 1 > /run/pid && echo nameserver > /etc/resolv.conf.new
RUN ls /etc > /etc-list
""",
    ),
    Case(
        "fails-run-ended-by-signal",
        "FROM busybox-test\nRUN sh -c 'kill -9 $$'; exit $?\n",
        fails=r"Dockerfile:2",
    ),
    Case(
        "fails-run-exit-code",
        "FROM busybox-test\nRUN echo words for the reader; exit 42\n",
        fails=r"words for the reader[\s\S]*Dockerfile:2[\s\S]*42",
    ),
    Case(
        "run-heredocs",
        """\
FROM busybox-test
ARG WHO=world
RUN <<EOF
echo "one $WHO" > /1
false
echo two > /2
EOF
RUN <<"EOF" cat > /3
$WHO stays
EOF
RUN <<-EOT sh
	echo tabs > /4
	EOT
RUN <<A cat > /5 && <<B cat > /6
a $WHO
A
b
B
RUN <<EOF
#!/bin/busybox ash
echo "$0 has its own interpreter" > /7
EOF
""",
        reference="golden",
        why="heredocs are Dockerfile 1.4",
        tree={
            "/1": "one world\n",
            "/2": "two\n",
            "/3": "$WHO stays\n",
            "/4": "tabs\n",
            "/5": "a world\n",
            "/6": "b\n",
            "/7": "/dev/pipes/EOF has its own interpreter\n",
        },
        config={},
        history=(
            "ARG WHO=world",
            'RUN |1 WHO=world /bin/sh -c echo "one $WHO" > /1\nfalse\necho two > /2\n # buildkit',
            'RUN |1 WHO=world /bin/sh -c <<"EOF" cat > /3\n$WHO stays\nEOF # buildkit',
            "RUN |1 WHO=world /bin/sh -c <<-EOT sh\n\techo tabs > /4\nEOT # buildkit",
            "RUN |1 WHO=world /bin/sh -c <<A cat > /5 && <<B cat > /6\na $WHO\nA\nb\nB # buildkit",
            "RUN |1 WHO=world /bin/sh -c /dev/pipes/EOF # buildkit",
        ),
    ),
    Case(
        "run-golden-file-types",
        """\
FROM busybox-test
RUN rm -r /opt/dir && mkdir /opt/dir && ln /opt/one /opt/dir/one && rm /opt/two && chmod 600 /etc/motd && ln -s x /opt/l
""",
        tree={
            "/opt/dir": Dir(),
            "/opt/dir/a": GONE,
            "/opt/dir/b": GONE,
            "/opt/dir/deep": GONE,
            "/opt/two": GONE,
            "/opt/one": "two names\n",
            "/opt/dir/one": Hard("/opt/one"),
            "/etc/motd": File("hello\n", 0o600),
            "/opt/l": Link("x"),
        },
        config={"Env": [PATH]},
    ),
)
