"""What `import echospan` gives is decided here, not by accident."""

import subprocess
import sys
from pathlib import Path

import echospan


def test_the_public_names_are_these_and_all_are_there():
    assert echospan.__all__ == [
        "Alphabet",
        "CORES",
        "Cell",
        "EchoModel",
        "EchoTask",
        "EchospanError",
        "Evaluation",
        "Grid",
        "ModelConfig",
        "Profile",
        "RECIPES",
        "Recipe",
        "Stream",
        "TrainingConfig",
        "as_core",
        "assert_span",
        "bench",
        "check",
        "combine",
        "evaluate",
        "load",
        "memory_capacity",
        "profile",
        "results",
        "shipped",
        "stream_errors",
        "train",
    ]
    for name in echospan.__all__:
        assert getattr(echospan, name) is not None


def test_no_public_name_is_hidden_by_a_module_of_the_same_name():
    modules = {p.stem for p in Path(echospan.__file__).parent.iterdir()}
    assert not modules & set(echospan.__all__)


def test_importing_it_imports_no_torch():
    code = "import sys, echospan; assert not {'torch', 'huggingface_hub'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
