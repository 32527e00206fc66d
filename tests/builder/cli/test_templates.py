"""The part of Go's templates that `--format` knows."""

from __future__ import annotations

import pytest

from builder.cli.inspect import typed
from builder.cli.templates import Template, show
from builder.cli.text import table
from builder.errors import UsageError

IMAGE = {
    "Id": "sha256:abc",
    "RepoTags": ["app:1", "app:2"],
    "Size": 12,
    "Empty": [],
    "None": None,
    "Config": {"Env": ["A=b"], "User": "", "Labels": {"z": "1", "a": "2"}, "Tty": True},
}


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("{{.Id}}", "sha256:abc"),
        ("{{ .Id }}!", "sha256:abc!"),
        (r"{{.Id}}\t{{.Size}}\n", "sha256:abc\t12\n"),
        ("{{.Config.Labels.a}}", "2"),
        ("{{.Config.Labels}}", "map[a:2 z:1]"),
        ("{{.Config.Tty}} {{.RepoTags}} {{.None}}", "true [app:1 app:2] <no value>"),
        ("{{json .Config.Env}}", '["A=b"]'),
        ("{{.Config.Env | json}}", '["A=b"]'),
        ('{{index .RepoTags 1}} {{index .Config.Labels "z"}}', "app:2 1"),
        ('{{join .RepoTags ", "}}', "app:1, app:2"),
        ("{{len .RepoTags}} {{upper .Id}} {{lower .Id}}", "2 SHA256:ABC sha256:abc"),
        ('{{"a b"}}{{`c`}}', "a bc"),
        ("{{range .RepoTags}}<{{.}}>{{end}}", "<app:1><app:2>"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range .Config.Labels}}{{.}},{{end}}", "2,1,"),
        ("{{if .Config.User}}user{{else}}root{{end}}", "root"),
        ("{{if .Size}}{{range .RepoTags}}{{println .}}{{end}}{{end}}", "app:1\napp:2\n"),
        ("a {{- .Size -}} b", "a12b"),
        ("no actions", "no actions"),
        ("{{/* nothing */}}x", "x"),
        ("{{.}}"[:0] + '{{print .Size "/" .Size}}', "12/12"),
        ("{{truncate .Id 6}}", "sha256"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}} {{end}}", "a=2 z=1 "),
        ("{{range $i, $t := .RepoTags}}{{$i}}:{{$t}},{{end}}", "0:app:1,1:app:2,"),
        (
            "{{range $t := .RepoTags}}{{$t}}{{$.Size}} {{end}}{{range .RepoTags}}{{$.Id}}{{end}}",
            "app:112 app:212 sha256:abcsha256:abc",
        ),
        ('{{if eq .Id "x" "sha256:abc"}}y{{end}}{{if not .Config.User}}n{{end}}', "yn"),
        ('{{if and .Size (ne .Id "")}}y{{else}}n{{end}}{{or .Config.User "root"}}', "yroot"),
        ("{{with .Config.Labels}}{{.a}}{{end}}{{with .Config.User}}x{{else}}{{.Size}}{{end}}", "212"),
        ("{{with $x := .Config}}{{$x.Tty}}{{end}}{{$n := len .RepoTags}}{{$n}}", "true2"),
        ('{{printf "%s-%d %q%%" (upper .Id) .Size "a"}}', 'SHA256:ABC-12 "a"%'),
        ("{{len (index .RepoTags 0)}}{{(json .Config.Env) | len}}", "57"),
        (
            '{{printf "%5s|%-5s|%05d|%x|%X|%.2s|%-4d|" "a" "b" .Size 255 "hi" .Id .Size}}',
            "    a|b    |00012|ff|6869|sh|12  |",
        ),
        ("{{slice .Id 7}} {{slice .Id 0 3}} {{slice .RepoTags 1}}", "abc sha [app:2]"),
        ("{{eq .Config.Tty true}}{{lt .Size 13}}{{ge .Size 13}}", "truetruefalse"),
    ],
)
def test_templates(template: str, shown: str) -> None:
    assert Template(template).render(IMAGE) == shown


@pytest.mark.parametrize(
    "template",
    [
        *("{{nope .Id}}", "{{range .RepoTags}}", "{{.Id .Size}}", "{{(.Id}}", "{{.Id)}}", "{{()}}", "{{+}}"),
        *("{{}}", "{{. |}}", "{{$x}}", "{{$a, $b := .Id}}", "{{if $a, $b := .Id}}{{end}}", "{{else if .Id}}"),
        *("{{", "{{.Id}} {{.Size", "{{.Id}"),
    ],
)
def test_what_is_not_understood_is_said_at_once(template: str) -> None:
    with pytest.raises(UsageError, match="--format"):
        Template(template)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{.Nope}}", "the fields are: Id, "),
        ("{{.Size.x}}", "none here"),
        ("{{index .RepoTags 9}}", "cannot be applied"),
        ("{{slice .Id 0 99}}", "cannot be applied"),
        ("{{slice .Id 3 1}}", "cannot be applied"),
        ('{{printf "%d" .Id}}', "cannot be applied"),
    ],
)
def test_fields_that_are_not_there(template: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Template(template).render(IMAGE)


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("{{json .Config.Cmd}} {{.Config.Cmd}} {{len .Config.Cmd}}", "null [] 0"),
        ("{{json .Config.Labels}} {{.Config.Labels}} {{json .Config.Volumes}}", "null map[] null"),
        ("{{json .Config.Healthcheck}} {{.Config.Healthcheck}}", "null <nil>"),
        ("<{{.Config.StopSignal}}> {{json .Config.User}}", '<> ""'),
        ("{{json .Config.Entrypoint}} {{.Config.Entrypoint}}", "null []"),
        ("{{range .Config.OnBuild}}x{{else}}none{{end}}{{if .Config.Shell}}y{{end}}", "none"),
        ("{{if .Config.Healthcheck}}yes{{else}}no{{end}} {{.Config.Env}} {{.Variant}}", "no [A=b] "),
        ('{{json .Config}} {{join .Config.Cmd ","}}', '{"Env":["A=b"],"Entrypoint":null} '),
        ("{{.Metadata.LastTagTime}}", "0001-01-01 00:00:00 +0000 UTC"),
    ],
)
def test_fields_that_docker_knows(template: str, shown: str) -> None:
    image = typed({"Config": {"Env": ["A=b"], "Entrypoint": None}})
    assert Template(template).render(image) == shown
    with pytest.raises(UsageError, match="the fields are: Env, Entrypoint, User"):
        Template("{{.Config.Nope}}").render(image)


def test_rows() -> None:
    rows = [{"ID": "a", "Tag": "1"}, {"ID": "b", "Tag": "2"}]
    titles = {"ID": "IMAGE ID", "Tag": "TAG"}
    assert show(rows, "{{.ID}}:{{.Tag}}", titles, table) == "a:1\nb:2\n"
    assert show(rows, "json", titles, table) == '{"ID": "a", "Tag": "1"}\n{"ID": "b", "Tag": "2"}\n'
    assert (
        show(rows, r"table {{.ID}}\t{{.Tag}}", titles, table)
        == "IMAGE ID   TAG\na          1\nb          2\n"
    )
