import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandallm.stats.groups import tied_groups


def test_by_hand() -> None:
    # 7, 6 and 4 points, different where more than 2 apart: a ties with b, b with c, a not with c.
    means = {"c": 4.0, "a": 7.0, "b": 6.0}
    far = lambda x, y: abs(means[x] - means[y]) > 2  # noqa: E731
    assert tied_groups(list(means), list(means.values()), far) == [["a", "b"], ["b", "c"]]
    assert tied_groups(list(means), list(means.values()), lambda x, y: False) == [["a", "b", "c"]]
    assert tied_groups(list(means), list(means.values()), lambda x, y: True) == [["a"], ["b"], ["c"]]
    assert tied_groups([], [], far) == []
    # Paired tests need not follow the order of the means: a and b may differ where a and c do not.
    assert tied_groups(["a", "b", "c"], [3, 2, 1], lambda x, y: {x, y} == {"a", "b"}) == [["a", "c"], ["b", "c"]]
    # Equal means keep the order given.
    assert tied_groups(["y", "x"], [1, 1], lambda x, y: False) == [["y", "x"]]


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="means"):
        tied_groups(["a"], [], lambda x, y: False)
    with pytest.raises(ValueError, match="differ"):
        tied_groups(["a", "a"], [1, 2], lambda x, y: False)


@given(
    st.integers(1, 6).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.sampled_from(list(itertools.combinations(range(6), 2)))))
    )
)
def test_exactly_the_maximal_sets(case: tuple[int, set[tuple[int, int]]]) -> None:
    n, apart = case
    names = [str(i) for i in range(n)]
    different = lambda x, y: (min(int(x), int(y)), max(int(x), int(y))) in apart  # noqa: E731
    groups = tied_groups(names, [-i for i in range(n)], different)
    clique = [
        set(s)
        for k in range(1, n + 1)
        for s in itertools.combinations(names, k)
        if not any(different(x, y) for x, y in itertools.combinations(s, 2))
    ]
    maximal = [s for s in clique if not any(s < other for other in clique)]
    assert sorted(map(sorted, maximal)) == sorted(map(sorted, groups))
    assert groups == sorted(groups)  # best first: names were given best first
