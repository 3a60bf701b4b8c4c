from pathlib import Path

from pandallm.evaluate.journal import Journal


def test_rows_survive_and_a_torn_line_does_not(tmp_path: Path) -> None:
    path = tmp_path / "j" / "x.jsonl"
    with Journal(path, "k") as journal:
        journal.add([(0, [1.5]), (1, "湖")])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id":2,"val')
    with Journal(path, "k") as journal:
        assert journal.rows == {0: [1.5], 1: "湖"}
        journal.add([(2, "山"), (0, "not twice")])
    with Journal(path, "k") as journal:
        assert journal.rows == {0: [1.5], 1: "湖", 2: "山"}
    path.write_bytes(whole[:-1])  # the last line lacks its end: it may be cut inside a number
    with Journal(path, "k") as journal:
        assert journal.rows == {0: [1.5]}


def test_a_journal_of_something_else_is_thrown_away(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with Journal(path, "model a") as journal:
        journal.add([(0, 1)])
    with Journal(path, "model b") as journal:
        assert journal.rows == {}
    with Journal(path, "model a") as journal:
        assert journal.rows == {}
    path.write_bytes(b"\xff\xfe nothing")
    with Journal(path, "model a") as journal:
        assert journal.rows == {}
