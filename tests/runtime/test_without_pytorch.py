"""What is trained runs where PyTorch is not."""

from __future__ import annotations

import pytest

from helpers import without_pytorch
from throughtime.models.language import LanguageModel
from throughtime.models.saved import save_model
from throughtime.models.settings import Model
from throughtime.text.settings import Text
from throughtime.text.tokenizer import fit

MAIN = "from throughtime.cli.main import main; main(sys.argv[1:])"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    tokenizer = fit(Text(), [b"abcd efgh\n"])
    save_model(place / "best", LanguageModel(Model(hidden_size=8), tokenizer.vocabulary_size), {})
    (place / "tokenizer.json").write_text(tokenizer.to_json(), "utf-8")
    (place / "text.txt").write_text("abc fgh\n" * 9)
    return place


@pytest.mark.parametrize("arguments", [["generate", "--tokens", "5"], ["score"], ["evaluate"]])
def test_the_command_line(place, arguments):
    command, *options = arguments
    text = [] if command == "generate" else [str(place / "text.txt")]
    done = without_pytorch(MAIN, command, str(place), *text, *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_from_python(place):
    code = "from throughtime import runtime; model = runtime.load(sys.argv[1]); print(*model.generate('ab', 9))"
    done = without_pytorch(code, str(place))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 5
