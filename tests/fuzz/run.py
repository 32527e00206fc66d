"""Fuzz targets in turn, guided by coverage (atheris, which need not be there for anything else).

    python tests/fuzz/run.py [TARGET ...] [--seconds 3600] [--slice 60] [--corpus DIR] [--pause-while FILE]

Every target gets a slice after the other until the time is over; what reached new code is kept in the corpus
and begun with the next time. An input that breaks a target is written to `found/TARGET/` here: it fails in
`test_found.py` until the defect is gone. The table at the end is printed as JSON lines too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LARGEST = 1 << 20


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--slice", type=int, default=60)
    parser.add_argument("--corpus", default=os.path.join(tempfile.gettempdir(), "pybuild-fuzz"))
    parser.add_argument("--found", default=str(HERE / "found"))
    parser.add_argument("--pause-while", default="", metavar="FILE")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        return one(given.targets[0], given.corpus, given.found)
    sys.path[:0] = [str(HERE), str(ROOT)]
    from harness import names

    targets = given.targets or names()
    counts: dict[str, list[float]] = {name: [0, 0.0, 0] for name in targets}
    end = time.monotonic() + given.seconds
    try:
        while time.monotonic() < end:
            for name in targets:
                if time.monotonic() < end:
                    _slice(name, given, counts[name])
    except KeyboardInterrupt:
        pass
    for name, (runs, seconds, failures) in counts.items():
        print(json.dumps({"target": name, "runs": runs, "cpu_s": round(seconds, 1), "failed": failures}))
    return 0


def _slice(name: str, given: argparse.Namespace, count: list[float]) -> None:
    """One target for one slice of time."""
    command = [sys.executable, __file__, "--one", name]
    command += ["--corpus", given.corpus, "--found", given.found]
    before = os.times()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        try:
            told = _wait(process, given.slice, given.pause_while)
        finally:
            process.kill()
            process.wait()
        said.seek(0)
        text = said.read().decode(errors="replace")
    after = os.times()
    runs = int(Path(given.corpus, f"{name}.runs").read_text() or 0)
    count[0] += runs
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    count[1] += seconds
    failed = not told and process.returncode != 0
    count[2] += failed
    coverage = re.findall(r"cov: (\d+)", text)
    print(
        f"{name}: {runs} runs, {seconds:.0f} s of CPU, coverage {coverage[-1] if coverage else '?'}",
        end="",
    )
    print(f", FAILED\n{text[-3000:]}" if failed else "", flush=True)


def _wait(process: subprocess.Popen[bytes], seconds: float, file: str) -> bool:
    """Until the slice is over, which is True unless the process was faster. It stands still while a file
    exists, and its clock with it."""
    paused, last = False, time.monotonic()
    while process.poll() is None and seconds > 0:
        wanted = bool(file) and os.path.exists(file)
        if wanted != paused:
            process.send_signal(signal.SIGSTOP if wanted else signal.SIGCONT)
            paused = wanted
        time.sleep(0.2)
        now = time.monotonic()
        seconds -= 0.0 if paused else now - last
        last = now
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGINT)
    process.wait(120)
    return True


def one(name: str, corpus: str, found: str) -> int:
    """Fuzz one target in this process. libFuzzer ends it."""
    import atheris

    sys.path[:0] = [str(HERE), str(ROOT)]
    with atheris.instrument_imports(include=["oci", "builder"]):  # what is imported late too
        import harness

        module = harness.load(name)
        arguments = _arguments(name, module, Path(corpus) / name, Path(found) / name)
        counter = os.open(Path(corpus) / f"{name}.runs", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        runs = 0

        def run(data: bytes) -> None:
            nonlocal runs
            runs += 1
            if runs % 32 == 0:
                os.pwrite(counter, b"%d" % runs, 0)
            harness.check(module, data)

        atheris.Setup(arguments, run)
        atheris.Fuzz()
    return 0


def _arguments(name: str, module: ModuleType, corpus: Path, found: Path) -> list[str]:
    """The command line of libFuzzer, and the files that it names."""
    for directory in (corpus, found):
        directory.mkdir(parents=True, exist_ok=True)
    for seed in module.SEEDS:
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    words = corpus.parent / f"{name}.words"
    words.write_text("# words\n" + "".join(_quoted(word) for word in getattr(module, "WORDS", ())))
    limits = [f"-max_len={LARGEST}", "-timeout=1200", "-rss_limit_mb=2048"]  # `check` knows better: CPU time
    files = [f"-dict={words}", f"-artifact_prefix={found}/"]
    return [name, str(corpus), *limits, *files, "-len_control=20"]


def _quoted(word: bytes) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n'


if __name__ == "__main__":
    sys.exit(main())
