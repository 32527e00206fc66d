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
        return one(given.targets[0], given.corpus, given.found, given.slice)
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
    command = [sys.executable, __file__, "--one", name, "--slice", str(given.slice)]
    command += ["--corpus", given.corpus, "--found", given.found]
    before = os.times()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        try:
            _wait(process, given.pause_while)
        finally:
            process.kill()
            process.wait()
        said.seek(0)
        text = said.read().decode(errors="replace")
    after = os.times()
    executed = re.search(r"number_of_executed_units:\s*(\d+)", text)
    count[0] += int(executed[1]) if executed else 0
    count[1] += after.children_user + after.children_system - before.children_user - before.children_system
    failed = process.returncode != 0
    count[2] += failed
    coverage = re.findall(r"cov: (\d+)", text)
    print(
        f"{name}: {executed[1] if executed else '?'} runs, coverage {coverage[-1] if coverage else '?'}",
        end="",
    )
    print(f", FAILED\n{text[-3000:]}" if failed else "", flush=True)


def _wait(process: subprocess.Popen[bytes], file: str) -> None:
    """Until the slice is over; the process stands still while a file exists."""
    paused = False
    while process.poll() is None:
        wanted = bool(file) and os.path.exists(file)
        if wanted != paused:
            process.send_signal(signal.SIGSTOP if wanted else signal.SIGCONT)
            paused = wanted
        time.sleep(0.2)


def one(name: str, corpus: str, found: str, seconds: int) -> int:
    """Fuzz one target in this process. libFuzzer ends it."""
    import atheris

    sys.path[:0] = [str(HERE), str(ROOT)]
    with atheris.instrument_imports(include=["oci", "builder"]):  # what is imported late too
        import harness

        arguments = _arguments(name, harness.load(name), Path(corpus) / name, Path(found) / name, seconds)
        atheris.Setup(arguments, lambda data: harness.check(harness.load(name), data))
        atheris.Fuzz()
    return 0


def _arguments(name: str, module: ModuleType, corpus: Path, found: Path, seconds: int) -> list[str]:
    """The command line of libFuzzer, and the files that it names."""
    for directory in (corpus, found):
        directory.mkdir(parents=True, exist_ok=True)
    for seed in module.SEEDS:
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    words = corpus.parent / f"{name}.words"
    words.write_text("# words\n" + "".join(_quoted(word) for word in getattr(module, "WORDS", ())))
    limits = [f"-max_total_time={seconds}", f"-max_len={LARGEST}", "-timeout=30", "-rss_limit_mb=2048"]
    files = [f"-dict={words}", f"-artifact_prefix={found}/"]
    return [name, str(corpus), *limits, *files, "-print_final_stats=1", "-len_control=20"]


def _quoted(word: bytes) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n'


if __name__ == "__main__":
    sys.exit(main())
