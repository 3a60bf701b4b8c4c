"""A training killed with -9 anywhere, also inside a save and one rank of two, and gone on with, gives the same bits."""

from pathlib import Path

import pytest

from pandallm.train.checkpoint import complete_checkpoints
from tests.invariant.killing import Death, live, make_inputs, same

STEPS = 10
#: A save makes ten file operations: shard flushed, renamed; state flushed, renamed; folder flushed, renamed, its parent
#: flushed; marker flushed, renamed, flushed. Where there are more than two, the oldest is removed by four more: its marker first.
#: With each death the step that is gone on from.
IN_SAVES = [
    (Death(operation=5), 0),
    (Death(operation=8), 0),
    (Death(shard=2), 1),
    (Death(operation=17), 2),
    (Death(operation=26), 4),
    (Death(operation=11), 5),
    (Death(operation=12), 6),
    (Death(operation=14), 7),
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_inputs(tmp_path_factory.mktemp("kill"), STEPS)


def saved(work: Path) -> int:
    """The newest step that can be gone on from."""
    found = complete_checkpoints(work)
    return int(found[-1].name.removeprefix("step-")) if found else 0


def test_killed_in_saves_and_between_them(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    assert not live(*inputs, tmp_path / "whole").killed
    work = tmp_path / "killed"
    for death, step in IN_SAVES:
        assert live(*inputs, work, death).killed, death
        assert saved(work) == step, death
        assert not (work / "model").exists()
    assert live(*inputs, work, Death(saved=1)).killed
    assert saved(work) > 7
    assert not live(*inputs, work).killed
    assert same(tmp_path / "whole", work)


def test_one_rank_of_two_killed(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    """The other ends by itself, and the two go on together: from the last checkpoint that both have written."""
    assert not live(*inputs, tmp_path / "whole", ranks=2).killed
    work = tmp_path / "killed"
    for death, least in (
        (Death(rank=1, operation=4), 1),
        (Death(rank=0, operation=16), 2),
        (Death(rank=1, saved=2), 4),
    ):
        life = live(*inputs, work, death, ranks=2)
        assert life.killed, death
        assert life.others < 30
        assert saved(work) >= least, death
    assert not live(*inputs, work, ranks=2).killed
    assert same(tmp_path / "whole", work)
