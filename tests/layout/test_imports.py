"""What stays light: PyTorch is not loaded before it is needed, and nothing needs the network or a pickle."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import without_pytorch

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "throughtime"


@pytest.mark.parametrize(
    "code",
    [
        "import throughtime; throughtime.__version__; throughtime.Recipe()",
        "import throughtime.text.dataset, throughtime.streams.batches, throughtime.streams.evaluation",
        "import throughtime.objective.evaluation",
        "import throughtime.runtime",
        "import throughtime.tasks.registry",
    ],
)
def test_without_pytorch(code):
    done = without_pytorch(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["train", "--help"], ["evaluate", "--help"], ["doctor"],
     ["train", "builtin", "--print-recipe"]],
)  # fmt: skip
def test_the_command_line_without_pytorch(arguments):
    done = without_pytorch("from throughtime.cli.main import main; main(sys.argv[1:])", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_help_loads_nothing_heavy():
    code = "import sys, json; from throughtime.cli.main import group\ntry: group.main(['--help'], prog_name='t')\n"
    code += "except SystemExit: print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in json.loads(done.stderr)}
    assert not loaded & {"torch", "numpy", "pydantic", "tokenizers", "matplotlib", "rich", "tomlkit", "safetensors"}


@pytest.mark.parametrize("arguments", [["cells"], ["inspect", "runs/mine"]])
def test_a_command_that_needs_pytorch_says_how_to_get_it(arguments):
    done = without_pytorch("from throughtime.cli.main import main; main(sys.argv[1:])", *arguments)
    assert done.returncode == 1
    assert done.stderr == "throughtime: this needs torch: pip install 'throughtime[train]'\n"


def test_a_training_does_not_load_the_compiler_of_pytorch(tmp_path):
    """It takes more than a second, and nothing is compiled."""
    (tmp_path / "text.txt").write_text("the cat sat on the mat\n" * 40)
    code = """
import sys, throughtime
settings = {"text": {"sources": [sys.argv[1]]}, "streams": {"lanes": 2, "window": 8}, "model": {"hidden_size": 4},
            "training": {"steps": 2, "threads": 1, "sample_tokens": 4}}
throughtime.train(settings, sys.argv[2])
assert "torch._dynamo" not in sys.modules
"""
    command = [sys.executable, "-c", code, str(tmp_path / "text.txt"), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_the_code_never_does():
    """No pickle, no torch.load, no network, no execution of what a file says."""
    forbidden_modules = {"pickle", "shelve", "marshal", "urllib", "http", "socket", "requests", "huggingface_hub"}
    forbidden_names = {"eval", "exec", "hasattr"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert not {name.split(".")[0] for name in names} & forbidden_modules, path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in forbidden_names | {"torch.load"}, path


def test_what_the_package_offers():
    import throughtime

    assert dir(throughtime) == ["Recipe", "__version__", "cells", "load", "resume", "runtime", "train"]
    for name in dir(throughtime):
        assert getattr(throughtime, name)
    with pytest.raises(AttributeError, match="has no attribute 'tain'"):
        throughtime.tain  # noqa: B018
