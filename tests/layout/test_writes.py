"""Every write of the project goes through durable.py, where the faults of tests/faults strike it.

The source is looked through here; `tests/conftest.py` watches what really happens while the tests run.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PACKAGE = TESTS.parent / "src" / "throughtime"
FILES = sorted(PACKAGE.rglob("*.py"))
ELSEWHERE = {
    "cli/streams.py": {"os.open", "open"},  # the null device, in place of closed standard streams
    "training/curve.py": {"savefig"},  # into memory
    "training/launcher.py": {  # where processes find each other, and what they say: gone with the training
        "tempfile.TemporaryDirectory",
        "tempfile.TemporaryFile",
    },
    "text/cache.py": {"mkdir", "unlink"},  # folders and entries of the cache, which may be deleted at any time
}
"""Calls that stay where they are, and why."""
OS = {
    "chmod", "chown", "copy_file_range", "fchmod", "fchown", "ftruncate", "lchown", "link", "makedirs",
    "mkdir", "mkfifo", "mknod", "posix_fallocate", "pwrite", "pwritev", "remove", "removedirs", "rename", "renames",
    "replace", "rmdir", "sendfile", "symlink", "truncate", "unlink", "utime", "write", "writev",
}  # fmt: skip
METHODS = {
    "FileIO", "chmod", "dump", "hardlink_to", "lchmod", "memmap", "mkdir", "open_memmap", "rename", "rmdir", "save",
    "save_file", "savefig", "savetxt", "savez", "savez_compressed", "symlink_to", "to_csv", "tofile", "touch", "unlink",
    "write_bytes", "write_text",
}  # fmt: skip
"""Of paths, arrays, figures and libraries."""
MODULES = {"shutil", "tempfile", "sqlite3", "zipfile", "tarfile", "shelve", "dbm", "pickle"}
WRITING_FLAGS = {"O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND", "O_TMPFILE"}


def writes(source: str) -> Iterator[tuple[str, int]]:
    """Calls that may write to a file, and their lines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                module = node.module.split(".")[0]
                if module in MODULES or (module == "os" and alias.name in OS) or alias.name in METHODS - {"save"}:
                    yield f"{node.module}.{alias.name}", node.lineno
        elif isinstance(node, ast.Call) and (name := _writer(node)):
            yield name, node.lineno


def _writer(call: ast.Call) -> str | None:
    """What a call is named that may write."""
    if isinstance(call.func, ast.Name):
        return call.func.id if call.func.id in ("open", "FileIO") and _opens_to_write(call, call.args[1:]) else None
    if not isinstance(call.func, ast.Attribute):
        return None
    of, name = ast.unparse(call.func.value), call.func.attr
    if of == "os":
        if name == "fdopen":
            return "os.fdopen" if _opens_to_write(call, call.args[1:]) else None
        to_write = name in OS or (name == "open" and not _only_reads(call))
        return f"os.{name}" if to_write else None
    if of.split(".")[0] in MODULES:
        return f"{of}.{name}"
    if name == "open":
        return "open" if _opens_to_write(call, call.args) else None
    if name == "replace" and len(call.args) == 1 and not call.keywords:
        return "replace"
    if of == "mmap" and name == "mmap" and "ACCESS_READ" not in ast.unparse(call):
        return "mmap.mmap"
    return name if name in METHODS else None


def _opens_to_write(call: ast.Call, modes: list[ast.expr]) -> bool:
    modes = modes + [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    constants = [mode.value for mode in modes if isinstance(mode, ast.Constant) and isinstance(mode.value, str)]
    unknown = any(not isinstance(mode, ast.Constant) for mode in modes[:1]) and isinstance(call.func, ast.Name)
    return unknown or any(set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in constants)


def _only_reads(call: ast.Call) -> bool:
    names = {node.attr for node in ast.walk(call) if isinstance(node, ast.Attribute)}
    return "O_RDONLY" in names and not names & WRITING_FLAGS


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_writes_past_durable(path):
    name = str(path.relative_to(PACKAGE))
    if name == "durable.py":
        return
    found = [f"{name}:{line} {call}" for call, line in writes(path.read_text("utf-8"))]
    past = [call for call in found if call.split()[1] not in ELSEWHERE.get(name, ())]
    assert not past, "use throughtime.durable"


@pytest.mark.parametrize(
    "code",
    [
        "Path(p).write_text('')", "p.write_bytes(b'')", "open(p, 'w')", "open(p, mode='ab')", "open(p, mode)",
        "p.open('w')", "p.open(mode='r+b')", "io.open(p, 'x')", "gzip.open(p, 'wb')", "os.open(p, os.O_RDWR)",
        "os.open(p, flags)", "os.replace(a, b)", "a.replace(b)", "a.rename(b)", "os.write(handle, b'')",
        "np.save(p, a)", "os.fdopen(handle, 'wb')",
        "np.savez(p, a=a)", "a.tofile(p)", "np.memmap(p, mode='w+')", "figure.savefig(p)", "torch.save(a, p)",
        "from safetensors.numpy import save_file", "shutil.copy(a, b)", "shutil.rmtree(a)", "from shutil import move",
        "from os import replace", "tempfile.NamedTemporaryFile()", "p.touch()", "p.mkdir()", "p.unlink()",
        "os.truncate(p, 0)", "p.symlink_to(q)", "tokenizer.save(p)", "mmap.mmap(handle, 0)",
    ],
)  # fmt: skip
def test_writes_of_every_kind_are_found(code):
    assert list(writes(code))


@pytest.mark.parametrize(
    "code",
    ["open(p)", "p.open('rb')", "open(p, 'r', encoding='utf-8')", "os.open(p, os.O_RDONLY)", "'a'.replace('b', 'c')",
     "replace(settings, name=1)", "mmap.mmap(handle, 0, access=mmap.ACCESS_READ)", "from safetensors.numpy import save",
     "stream.write('')"],
)  # fmt: skip
def test_reading_is_no_write(code):
    assert not list(writes(code))


PAST = """
import sys
from pathlib import Path
import pytest
sys.path.insert(0, {tests!r})

pytest_plugins = ["writes"]

@pytest.mark.parametrize("code", {codes!r})
def test_it(code, tmp_path):
    past = compile(code, {inside!r}, "exec")
    exec(past, {{"folder": tmp_path}})
"""
CODES = [
    "(folder / 'a').write_text('')",
    "open(folder / 'a', 'w')",
    "import numpy; numpy.save(folder / 'a.npy', [1])",
    "import os; os.mkdir(folder / 'a')",
    "import shutil; shutil.copy('/etc/hostname', folder / 'a')",
    "import os, tempfile; os.rename(folder, str(folder) + 'b')",
]


def test_a_write_past_durable_fails_the_test_that_runs_it(tmp_path):
    inside = str(PACKAGE / "training" / "card.py")
    (tmp_path / "test_past.py").write_text(PAST.format(tests=str(TESTS), inside=inside, codes=CODES))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "test_past.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert f"{len(CODES)} failed" in done.stdout, done.stdout
    assert done.stdout.count("goes past durable.py") >= len(CODES)
