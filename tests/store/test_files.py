import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandallm.errors import BadInput
from pandallm.store import canonical_json, digest_folder, digest_json, read_json, read_jsonl, write_json, write_jsonl

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_canonical_json_reads_back_and_ignores_order(value: object) -> None:
    assert json.loads(canonical_json(value)) == value
    if isinstance(value, dict):
        assert digest_json(dict(reversed(value.items()))) == digest_json(value)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_broken_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"a": "中文"}, {"a": 2}])
    assert list(read_jsonl(path)) == [{"a": "中文"}, {"a": 2}]
    path.write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(BadInput, match=r"rows\.jsonl:3: not valid JSON"):
        list(read_jsonl(path))


def test_digest_of_a_folder_sees_names_and_bytes_but_not_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = digest_folder(tmp_path)
    (tmp_path / ".hidden").write_text("x")
    assert digest_folder(tmp_path) == before
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest_folder(tmp_path) != before
