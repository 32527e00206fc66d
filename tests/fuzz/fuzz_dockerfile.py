"""A Dockerfile to a plan: reader, words, forms, checks, lowering."""

from __future__ import annotations

from builder.errors import BuildError
from builder.frontend.lower import PlanOptions, plan
from builder.frontend.reader import decode
from builder.source import SourceRange
from oci.image import Image
from oci.model import ImageConfig, Platform, RunConfig

AMD64 = Platform("linux", "amd64")
IMAGE = Image.of(ImageConfig(AMD64, RunConfig(user="a:b", working_dir="/w", on_build=("RUN x",))))


SEEDS = tuple(
    text.encode()
    for text in (
        """FROM a
RUN --mount=type=cache,target=/x,sharing=locked --network=none echo $A <<E
b
E
""",
        """# escape=`
# check=skip=all
ARG A=1
FROM --platform=$BUILDPLATFORM a:${A:-b}@sha256:x AS s
COPY --from=s --chmod=u+x,go-w --chown=1:2 --link --parents --exclude=*.c a b/ c /d/
ADD --unpack a /
""",
        """FROM scratch
ENV a=1 b="$a c" d='e'
LABEL x y
EXPOSE 1-3/udp
VOLUME ["/a"]
USER 1
WORKDIR ../x
SHELL ["sh","-c"]
STOPSIGNAL KILL
HEALTHCHECK --interval=1m2s CMD x
ONBUILD COPY a b
CMD ["a"]
ENTRYPOINT a
MAINTAINER me
""",
        """FROM a
COPY <<A <<-'B' /x/
1
A
	2
B
RUN <<E cat
${x#a*} ${x//b/c} ${x^^}
E
""",
        """FROM a
RUN --mount=type=secret,id=s,env=X --security=insecure --mount=type=ssh \\
# c

 x
INCLUDE a
""",
    )
)
WORDS = tuple(
    b"""FROM ARG ENV LABEL EXPOSE CMD ENTRYPOINT VOLUME USER WORKDIR SHELL STOPSIGNAL HEALTHCHECK ONBUILD COPY
    ADD RUN MAINTAINER INCLUDE AS NONE scratch --from= --chown= --chmod= --link --mount=type= bind cache tmpfs
    secret ssh target= source= id= from= ro rw mode= uid= size= --network= --security= --platform= --retries=
    --interval= --timeout= --parents --exclude= --checksum= --keep-git-dir --unpack --if-exists --env-file=
    escape= syntax= check= <<E <<-'E' ${ :- :+ :? ## %% // /# /% ^^ ,, # $ \\ `""".split()
)


def target(data: bytes) -> None:
    """Any bytes."""

    def resolve(reference: str, platform: Platform, at: SourceRange) -> Image:
        return IMAGE

    flags = data[0] if data else 0
    options = PlanOptions(
        AMD64,
        AMD64,
        target="s" if flags & 1 else "",
        build_args={"A": "b", "SOURCE_DATE_EPOCH": "1"},
        contexts={"ctx": None},
        every_stage=bool(flags & 2),
        clock=1 if flags & 4 else None,
        enable=frozenset({"env-file", "shell-strict", "include"}) if flags & 16 else frozenset(),
        allow=frozenset({"network.host"}) if flags & 8 else frozenset(),
    )
    try:
        made = plan(decode(data, "Dockerfile"), options, resolve)
    except BuildError as error:
        assert str(error)
        assert error.at is None or error.at.excerpt()
        return
    made.config.to_json()
    "".join(each.created_by for each in made.records).encode()
