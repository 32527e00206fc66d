"""ssh agents for steps: a door that lets through the two requests a client needs, and agents of our own.

The door is a socket of our own before the real agent's (draft-miller-ssh-agent, 3). A step may ask which
identities there are and have something signed; whatever else it asks (adding, removing, locking, extensions)
is answered with a failure and never reaches the agent (SECURITY.md S63). The door closes with the step.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_REQUEST_IDENTITIES, _SIGN_REQUEST = 11, 13
_FAILURE = b"\x05"
_LONGEST = 256 << 10
_MOST_CLIENTS = 64
_TRUSTED_PATH = "/usr/local/bin:/usr/bin:/bin"
_WATCH = 'echo ready; cat; kill $SSH_AGENT_PID; rm -rf -- "$0"'


class Door:
    """A socket `name` in the directory `folder` (a descriptor) that leads to the agent at `upstream`.

    Use it in `with`: afterwards the socket is gone and every connection closed, also those that a process
    kept. Raises OSError.
    """

    def __init__(self, folder: int, name: str, upstream: str, looks: tuple[int, int, int]) -> None:
        self._folder = folder
        self._name = name
        self._upstream = upstream
        self._looks = looks
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> Door:
        try:
            self._listen()
        except BaseException:
            self._listener.close()
            raise
        self._begin(self._accept)
        return self

    def _listen(self) -> None:
        mode, uid, gid = self._looks
        # By the descriptor's name: a socket's path has 107 bytes at most, and ours may be longer.
        self._listener.bind(f"/proc/self/fd/{self._folder}/{self._name}")
        try:
            os.chown(self._name, uid, gid, dir_fd=self._folder, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # In a namespace of one id all processes of a step are root, whose it is already.
        os.chmod(self._name, mode, dir_fd=self._folder)
        self._listener.listen(_MOST_CLIENTS)

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._closed = True
            for each in (self._listener, *self._open):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()
        with suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._folder)

    def _begin(self, work: object, *args: object) -> None:
        thread = threading.Thread(target=work, args=args, name="ssh-door", daemon=True)  # type: ignore[arg-type]
        self._threads = [each for each in self._threads if each.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                welcome = not self._closed and len(self._open) < 2 * _MOST_CLIENTS
                if welcome:
                    self._open.add(client)
                    self._begin(self._serve, client)
            if not welcome:
                client.close()

    def _serve(self, client: socket.socket) -> None:
        agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with self._lock:
            self._open.add(agent)
            closed = self._closed
        try:
            with suppress(OSError):
                if not closed:
                    agent.connect(self._upstream)
                    self._exchange(client, agent)
        finally:
            with self._lock:
                self._open -= {client, agent}
            client.close()
            agent.close()

    @staticmethod
    def _exchange(client: socket.socket, agent: socket.socket) -> None:
        while request := _receive(client):
            answer = _FAILURE
            if request[0] == _REQUEST_IDENTITIES:
                _send(agent, request[:1])
                answer = _receive(agent)
            elif request[0] == _SIGN_REQUEST:
                _send(agent, request)
                answer = _receive(agent)
            if not answer:
                return
            _send(client, answer)


def _receive(peer: socket.socket) -> bytes:
    """One message without its length; nothing when the peer is gone or talks nonsense."""
    head = _exactly(peer, 4)
    length = struct.unpack(">I", head)[0] if head else 0
    return _exactly(peer, length) if 0 < length <= _LONGEST else b""


def _exactly(peer: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        part = peer.recv(count)
        if not part:
            return b""
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _send(peer: socket.socket, message: bytes) -> None:
    peer.sendall(struct.pack(">I", len(message)) + message)


class KeyAgent:
    """A private ssh-agent that holds some private keys. Use it in `with`; `path` is its socket.

    A shell waits for our end of a pipe to close, then ends the agent and takes its directory away, also when
    we are killed. Raises OSError: ssh-agent is not installed, or does not take a key.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [os.path.abspath(key) for key in keys]
        self._exit = ExitStack()
        self.path = ""

    def __enter__(self) -> KeyAgent:
        try:
            self._start()
        except BaseException:
            self._exit.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._exit.close()

    def _start(self) -> None:
        folder = tempfile.mkdtemp(prefix="pybuild-agent-")
        self._exit.callback(shutil.rmtree, folder, ignore_errors=True)
        self.path = os.path.join(folder, "agent")
        waiting = subprocess.Popen(
            [_program("ssh-agent"), "-a", self.path, "/bin/sh", "-c", _WATCH, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": _TRUSTED_PATH},
            start_new_session=True,
        )
        self._exit.callback(_end, waiting)
        assert waiting.stdout is not None
        if not waiting.stdout.readline():
            raise OSError(5, "ssh-agent did not start")
        for key in self._keys:
            self._add(key)

    def _add(self, key: str) -> None:
        done = subprocess.run(
            [_program("ssh-add"), "-q", "--", key],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={"PATH": _TRUSTED_PATH, "SSH_AUTH_SOCK": self.path, "SSH_ASKPASS_REQUIRE": "never"},
            start_new_session=True,
            timeout=30,
            check=False,
        )
        if done.returncode:
            said = " ".join(done.stderr.decode("utf-8", "replace").split()) or "is it encrypted?"
            raise OSError(22, f"ssh-add does not take {key}: {said}")


def _program(name: str) -> str:
    found = shutil.which(name, path=_TRUSTED_PATH)
    if found is None:
        raise FileNotFoundError(
            2, f"{name} is not installed: install openssh-client, or give an agent's socket"
        )
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.wait()
