"""Our schemas are schemas, and say what the image-spec says."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from oci import schema
from oci.errors import InvalidDocument

POINTER = {"mediaType": "a/b", "digest": "sha256:" + "a" * 64, "size": 3}
GOOD: dict[str, Any] = {
    "descriptor": POINTER,
    "manifest": {"schemaVersion": 2, "config": POINTER, "layers": [POINTER]},
    "index": {"schemaVersion": 2, "manifests": [{**POINTER, "platform": {"architecture": "a", "os": "b"}}]},
    "config": {
        "created": "2024-01-01T00:00:00.123456789Z",
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": None, "Env": ["A=b"], "ExposedPorts": {"80/tcp": {}}, "Labels": None},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "b" * 64]},
        "history": [{"created": "2024-01-01T00:00:00+01:00", "empty_layer": True}],
    },
    "layout": {"imageLayoutVersion": "1.0.0"},
}


@pytest.mark.parametrize("kind", schema.KINDS)
def test_schemas_are_sound(kind: str) -> None:
    Draft202012Validator.check_schema(schema.schema(kind))
    assert schema.findings(kind, GOOD[kind]) == []
    schema.check(kind, json.dumps(GOOD[kind]).encode())


@pytest.mark.parametrize(
    ("kind", "change", "path"),
    [
        ("descriptor", {"size": -1}, "descriptor.size"),
        ("descriptor", {"size": 1.5}, "descriptor.size"),
        ("descriptor", {"size": 1 << 63}, "descriptor.size"),
        ("descriptor", {"mediaType": "nothing"}, "descriptor.mediaType"),
        ("descriptor", {"mediaType": "a/b\n"}, "descriptor.mediaType"),
        ("descriptor", {"digest": "sha256:" + "A" * 64}, "descriptor.digest"),
        ("descriptor", {"digest": "sha256:" + "a" * 64 + "\n"}, "descriptor.digest"),
        ("descriptor", {"annotations": {"a": 1}}, "descriptor.annotations.a"),
        ("manifest", {"schemaVersion": 1}, "manifest.schemaVersion"),
        ("manifest", {"manifests": []}, "manifest.manifests"),
        ("manifest", {"mediaType": "application/vnd.oci.image.index.v1+json"}, "manifest.mediaType"),
        ("manifest", {"layers": [{}]}, "manifest.layers[0]"),
        ("index", {"layers": []}, "index.layers"),
        ("index", {"manifests": None}, "index.manifests"),
        ("index", {"manifests": [{**POINTER, "platform": {"os": "b"}}]}, "index.manifests[0].platform"),
        ("config", {"created": "yesterday"}, "config.created"),
        ("config", {"os": ""}, "config.os"),
        ("config", {"rootfs": {"type": "x"}}, "config.rootfs.type"),
        ("config", {"config": {"Env": "A=b"}}, "config.config.Env"),
        ("layout", {"imageLayoutVersion": "2.0.0"}, "layout.imageLayoutVersion"),
    ],
)
def test_findings_name_the_place(kind: str, change: dict[str, Any], path: str) -> None:
    document = {**GOOD[kind], **change}
    assert path in [finding.path for finding in schema.findings(kind, document)]
    with pytest.raises(InvalidDocument, match=kind):
        schema.check(kind, document)


@pytest.mark.parametrize("kind", [kind for kind in schema.KINDS if kind != "layout"])
def test_required_fields(kind: str) -> None:
    for required in schema.schema(kind)["required"]:
        document = {key: value for key, value in GOOD[kind].items() if key != required}
        assert [finding.path for finding in schema.findings(kind, document)] == [kind]


def test_long_values_are_cut() -> None:
    [finding] = schema.findings("descriptor", {**POINTER, "digest": "x" * 10_000})
    assert len(finding.message) < 320
    assert str(finding).startswith("error: descriptor.digest: ")


def test_jsonschema_is_loaded_only_when_used() -> None:
    code = "import sys, oci.schema, oci.validate, oci.archive; sys.exit('jsonschema' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
