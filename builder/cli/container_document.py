"""What `inspect` says of a container, in docker's shape."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from builder.cli.session import Session

if TYPE_CHECKING:
    from builder.container.model import Container, State
    from oci.model import RunConfig

_NEVER = "0001-01-01T00:00:00Z"


def document(session: Session, ident: str, *, sized: bool = False) -> dict[str, Any]:
    """All there is to know of a container. Raises NotFound when it is gone, OciError for a damaged image."""
    from builder.container.store import Containers
    from oci.digest import Digest
    from oci.model import Descriptor

    containers = Containers(session.root)
    container, state = containers.get(ident), containers.state(ident)
    place = containers.path(ident)
    manifest = Descriptor(container.manifest_type, Digest.parse(container.manifest), container.manifest_size)
    image = session.images.for_platform(manifest)
    config = image.config.value.config
    shown = {
        "Id": container.id,
        "Created": container.created,
        "Path": container.argv[0],
        "Args": list(container.argv[1:]),
        "State": _state(state),
        "Image": container.image_id,
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": os.path.join(place, "log"),
        "Name": f"/{container.name}",
        "RestartCount": 0,
        "Driver": "overlay",
        "Platform": image.platform.os,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": _host_config(container),
        "GraphDriver": {"Name": "overlay", "Data": _graph(place, state)},
        "Mounts": _mounts(session, container),
        "Config": _config(container, config),
        "NetworkSettings": _network(container, state, config),
    }
    if sized:
        shown |= _sizes(place, state, sum(layer.size for layer in image.layers))
    return shown


def typed(shown: Mapping[str, Any]) -> Mapping[str, Any]:
    """The document for a template: docker's fields are known also where they are left out of the JSON."""
    from builder.cli.template_values import NilList, NilMap, Struct

    def values(found: Any) -> Any:
        if isinstance(found, dict):
            return {key: values(each) for key, each in found.items()}
        return [values(each) for each in found] if isinstance(found, list) else found

    lists = (
        "Cmd",
        "Entrypoint",
        "Binds",
        "CapAdd",
        "CapDrop",
        "ExtraHosts",
        "SecurityOpt",
        "ExecIDs",
        "Ulimits",
    )
    maps = ("Volumes", "ExposedPorts", "PortBindings", "Tmpfs")
    whole = values(shown)
    for part in (whole, whole["Config"], whole["HostConfig"]):
        for key, value in part.items():
            if value is None and key in lists:
                part[key] = NilList()
            elif value is None and key in maps:
                part[key] = NilMap()
    zeros = {"ExposedPorts": NilMap(), "StopSignal": "", "StopTimeout": 0, "StdinOnce": False}
    inner = {"Config": Struct(whole["Config"], zeros)}
    return Struct({**whole, **inner}, {"SizeRw": 0, "SizeRootFs": 0})


def _state(state: State) -> dict[str, Any]:
    return {
        "Status": state.status,
        "Running": state.alive,
        "Paused": state.status == "paused",
        "Restarting": False,
        "OOMKilled": state.oom_killed,
        "Dead": state.status == "dead",
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": state.started or _NEVER,
        "FinishedAt": state.finished or _NEVER,
    }


def _host_config(container: Container) -> dict[str, Any]:
    request = container.request
    limits = request.limits.step if request.limits else None
    binds = [
        f"{each.source or ''}:{each.target}{':ro' if each.read_only else ''}"
        for each in request.volumes
        if each.kind != "tmpfs"
    ]
    tmpfs = {each.target: "" for each in request.volumes if each.kind == "tmpfs"}
    return {
        "Binds": binds or None,
        "ContainerIDFile": "",
        "LogConfig": {"Type": "json-file", "Config": {}},
        "NetworkMode": "bridge" if request.network == "default" else request.network,
        "PortBindings": _bindings(request.ports, asked=True),
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": request.auto_remove,
        "CapAdd": [_capability(each) for each in sorted(request.added)] or None,
        "CapDrop": [_capability(each) for each in sorted(request.dropped)] or None,
        "ExtraHosts": [f"{host}:{address}" for host, address in request.extra_hosts] or None,
        "Privileged": request.privileged,
        "PublishAllPorts": False,
        "ReadonlyRootfs": request.read_only,
        "SecurityOpt": list(request.security_opts) or None,
        **({"Tmpfs": tmpfs} if tmpfs else {}),
        "ShmSize": request.shm_size,
        "CpuShares": limits.cpu_shares if limits else 0,
        "Memory": limits.memory if limits else 0,
        "NanoCpus": _nano_cpus(limits),
        "CgroupParent": request.limits.parent if request.limits else "",
        "CpuPeriod": limits.cpu_period if limits else 0,
        "CpuQuota": limits.cpu_quota if limits else 0,
        "CpusetCpus": limits.cpus if limits else "",
        "CpusetMems": limits.mems if limits else "",
        "MemorySwap": limits.swap if limits else 0,
        "BlkioWeight": limits.io_weight if limits else 0,
        "PidsLimit": limits.pids if limits and limits.pids else None,
        "Ulimits": [{"Name": name, "Soft": soft, "Hard": hard} for name, soft, hard in request.ulimits],
    }


def _nano_cpus(limits: Any) -> int:
    """`--cpus` is kept as a quota of a period."""
    if not limits or limits.cpu_quota <= 0 or not limits.cpu_period:
        return 0
    return int(limits.cpu_quota * 1_000_000_000 // limits.cpu_period)


def _capability(name: str) -> str:
    return name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"


def _graph(place: str, state: State) -> dict[str, str] | None:
    if not state.uppers:
        return None
    *lower, upper = (os.path.join(place, each) for each in state.uppers)
    return {"UpperDir": upper, **({"LowerDir": ":".join(reversed(lower))} if lower else {})}


def _mounts(session: Session, container: Container) -> list[dict[str, Any]]:
    found = []
    for each in container.request.volumes:
        one: dict[str, Any] = {"Type": each.kind}
        if each.kind == "volume":
            one |= {"Name": each.source, "Source": _data(session, each.source)}
        else:
            one |= {"Source": each.source}
        found.append(
            one
            | {
                "Destination": each.target,
                **({"Driver": "local"} if each.kind == "volume" else {}),
                "Mode": "ro" if each.read_only else "",
                "RW": not each.read_only,
                "Propagation": "rprivate" if each.kind == "bind" else "",
            }
        )
    return found


def _data(session: Session, name: str) -> str:
    from builder.container.volumes import Volumes
    from builder.errors import BuildError

    try:
        return Volumes(session.root).inspect(name).path
    except (BuildError, OSError):
        return ""


def _config(container: Container, config: RunConfig) -> dict[str, Any]:
    from builder.container.operation import environment

    request = container.request
    entrypoint: Any = list(config.entrypoint) if config.entrypoint is not None else None
    if request.entrypoint is not None:
        entrypoint = [request.entrypoint] if request.entrypoint else None
    cmd = request.args or (() if request.entrypoint is not None else config.cmd or ())
    ports = sorted({*map(_port, config.exposed_ports), *(each.inside for each in request.ports)})
    return {
        "Hostname": container.hostname or container.short,
        "Domainname": "",
        "User": container.user,
        "AttachStdin": request.interactive,
        "AttachStdout": True,
        "AttachStderr": True,
        **({"ExposedPorts": {each: {} for each in ports}} if ports else {}),
        "Tty": request.terminal,
        "OpenStdin": request.interactive,
        "StdinOnce": request.interactive,
        "Env": [f"{name}={value}" for name, value in environment(request, config).items()],
        "Cmd": list(cmd) or None,
        "Image": container.image,
        "Volumes": {each: {} for each in sorted(config.volumes)} or None,
        "WorkingDir": container.working_dir,
        "Entrypoint": entrypoint,
        "Labels": dict(container.labels),
        "StopSignal": container.stop_signal,
        "StopTimeout": int(request.stop_timeout_s),
    }


def _port(text: str) -> str:
    return text if "/" in text else f"{text}/tcp"


def _bindings(ports: Any, *, asked: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in ports:
        host = "" if asked and not each.host_port else str(each.host_port)
        found.setdefault(each.inside, []).append({"HostIp": each.host_ip, "HostPort": host})
    return found


def _network(container: Container, state: State, config: RunConfig) -> dict[str, Any]:
    name = "bridge" if container.request.network == "default" else container.request.network
    bound = _bindings(state.ports, asked=False)
    exposed = {_port(each): None for each in sorted(config.exposed_ports)} if state.alive else {}
    address = state.address if state.alive else ""
    return {
        "Ports": exposed | bound,
        "IPAddress": address,
        "Networks": {name: {"IPAddress": address, "Aliases": None}},
    }


def _sizes(place: str, state: State, below: int) -> dict[str, int]:
    written = 0
    for upper in state.uppers:
        for folder, _, names in os.walk(os.path.join(place, upper)):
            for each in names:
                path = os.path.join(folder, each)
                written += os.lstat(path).st_size if os.path.lexists(path) else 0
    return {"SizeRw": written, "SizeRootFs": written + below}
