"""What `import longheads` gives without torch, and what it refuses."""

import importlib
import subprocess
import sys

import pytest
from torch import nn

import longheads
from papercore.errors import ModelError


def test_the_module_that_a_message_names_is_there():
    code = "import longheads; assert longheads.trace.record"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert longheads.trace is importlib.import_module("longheads.trace")


def test_a_module_of_torch_is_refused_in_one_line():
    with pytest.raises(ModelError, match=r"^Linear is no model of transformers: give one"):
        longheads.enable(nn.Linear(2, 2))
