"""Archives that `load` must refuse."""

from __future__ import annotations

from collections.abc import Callable

from bad_input.case import Case
from bad_input.laying import LAYER, config, docker_archive, tar, text, written


def _case(name: str, content: Callable[[], bytes], says: tuple[str, ...], check: str) -> Case:
    return Case(name, written("bad.tar", content), ("load", "-i", "bad.tar"), says, check)


CASES = (
    _case(
        "no-tar-at-all",
        lambda: b"#!/bin/sh\n# a script, not an archive\n" * 40,
        ("a header's checksum is", "no octal number"),
        "which is no octal number",
    ),
    _case(
        "cut-short",
        lambda: docker_archive()[:2000],
        ("the archive ends", "bytes too early"),
        "the archive ends {missing} bytes",
    ),
    _case(
        "a-file-system-not-an-image",
        lambda: tar(("etc/passwd", b"root:x:0:0::/:/bin/sh\n")),
        ("no image archive", "is read with `import`"),
        "no image archive",
    ),
    _case(
        "manifest-that-is-no-list",
        lambda: docker_archive(manifest=text({"Config": "x"})),
        ("manifest.json: expected an array of images",),
        "expected an array of images",
    ),
    _case(
        "layer-not-there",
        lambda: docker_archive(
            manifest=text([{"Config": "c.json", "Layers": ["gone.tar"]}]), config_name="c.json"
        ),
        ("manifest.json names the layer 'gone.tar', which is not in the archive",),
        "names the layer",
    ),
    _case(
        "another-layer-than-promised",
        lambda: docker_archive(layer=tar(("other", b"bytes\n"))),
        ("layer 1 of", "its config says sha256:"),
        "layer {position + 1}",
    ),
    _case(
        "another-config-than-named",
        lambda: docker_archive(config_name="0" * 64 + ".json"),
        ("the config '00000000", "is not what its name says"),
        "is not what its name says",
    ),
    _case(
        "a-member-outside",
        lambda: docker_archive(more=(("../evil", b"{}"),)),
        ("../evil", "leaves the archive"),
        "leaves the archive",
    ),
    _case(
        "a-member-twice",
        lambda: docker_archive(more=(("manifest.json", text([])),)),
        ("manifest.json stands in the archive twice",),
        "stands in the archive twice",
    ),
    _case(
        "no-images",
        lambda: tar(("manifest.json", b"[]"), ("c.json", text(config(LAYER)))),
        ("the archive names no images",),
        "the archive names no images",
    ),
)
