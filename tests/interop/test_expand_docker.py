"""Docker builds what `pybuild expand` prints, and the image is the one that ours makes of the original."""

from __future__ import annotations

import os

import pytest
from judges.bases import BUSYBOX
from judges.dockerd import Docker
from judges.flatten import differences, read_image
from judges.pybuild import Pybuild

pytestmark = [pytest.mark.interop, pytest.mark.root]

FILES = {
    "Dockerfile": "# syntax=docker/dockerfile:1\n# pybuild=include,env-file\n# a note\nARG DIR=parts\n"
    f"FROM {BUSYBOX} AS one\nINCLUDE $DIR/make\nFROM {BUSYBOX}\nENV --from-file=vars.env\n"
    "COPY --from=one /made /made\nINCLUDE parts/end\n",
    "parts/make": "# of a part\nRUN mkdir /made && \\\n  # between\n  echo $((6 * 7)) > /made/answer\n"
    "INCLUDE parts/more",
    "parts/more": "COPY parts/end /made/\n",
    "parts/end": 'LABEL a="b c" \\\n  d=$NAME\nCMD ["sh"]\n',
    "vars.env": '# for everybody\nNAME=it\'s "$HOME" \\ `x`\nEMPTY=\n',
}


def test_docker_builds_the_same_image(
    docker: Docker, pybuild: Pybuild, busybox_image: str, busybox_archive: str, memory_dir: str
) -> None:
    docker.run("load", "--input", busybox_archive)
    context = os.path.join(memory_dir, "expand")
    for name, text in FILES.items():
        os.makedirs(os.path.dirname(os.path.join(context, name)), exist_ok=True)
        with open(os.path.join(context, name), "w") as file:
            file.write(text)
    plain = pybuild.run("expand", context).stdout
    assert b"INCLUDE" not in plain and b"--from-file" not in plain and b"# between\n" in plain
    pybuild.run("build", "-o", f"type=oci,dest={context}/ours.tar", context)
    with open(f"{context}/plain", "wb") as file:
        file.write(plain.split(b"\n", 1)[1])  # no registry is asked for the frontend that `syntax` names
    docker.run("build", "--network=host", "--file", f"{context}/plain", "--tag", "expanded:1", context)
    docker.run("save", "--output", f"{context}/theirs.tar", "expanded:1")
    ours, theirs = read_image(f"{context}/ours.tar"), read_image(f"{context}/theirs.tar")
    assert differences(ours.tree, theirs.tree) == []
    for key in ("Env", "Labels", "Cmd"):
        assert ours.config["config"][key] == theirs.config["config"][key]
    history = [[each["created_by"] for each in image.config["history"]] for image in (ours, theirs)]
    assert history[0] == history[1]
