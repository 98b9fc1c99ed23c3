import pytest

from papercore import errors


@pytest.mark.parametrize(
    ("kind", "standard", "code"),
    [
        (errors.ConfigError, ValueError, 2),
        (errors.DataError, ValueError, 2),
        (errors.ModelError, RuntimeError, 2),
        (errors.GenerationError, RuntimeError, 1),
        (errors.SandboxError, RuntimeError, 1),
    ],
)
def test_each_kind_is_caught_as_its_standard_error_and_as_ours(kind, standard, code):
    for caught in (standard, errors.PaperError):
        with pytest.raises(caught) as info:
            raise kind("chunk=3: choose 4")
        assert info.value.exit_code == code
