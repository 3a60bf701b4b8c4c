import pytest

from pandallm.errors import PandaError
from pandallm.pipeline.verify import compare


def test_equal_values_are_counted() -> None:
    assert compare({"a": [1.0, 2, "x"], "b": True}, {"a": [1.0 + 1e-12, 2, "x"], "b": True}, "scores.json") == 2


@pytest.mark.parametrize("other", [{"a": [1.0, 2.1]}, {"a": [1.0]}, {"b": [1.0, 2]}, {"a": None}])
def test_the_first_difference_is_named(other: object) -> None:
    with pytest.raises(PandaError, match=r"scores\.json.* the rows give"):
        compare({"a": [1.0, 2]}, other, "scores.json")
