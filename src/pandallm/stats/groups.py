"""Which systems cannot be told apart."""

from collections.abc import Callable, Sequence


def tied_groups(names: Sequence[str], means: Sequence[float], different: Callable[[str, str], bool]) -> list[list[str]]:
    """All maximal sets of names in which no pair is `different`, best first, within a set and between sets.

    A name may stand in several sets: A tied with B and B with C does not tie A with C. It is what Piepho (2004), J.
    Comput. Graph. Stat. 13:456, shows by letters: two systems differ exactly if they share no set. The maximal cliques
    of the graph of ties (Bron & Kerbosch 1973), which may be many where ties are irregular. Equal means keep the order
    given. `different` must be symmetric; it is asked once a pair. Raises ValueError for names that repeat, or that are
    more or fewer than the means.
    """
    if len(names) != len(means):
        raise ValueError(f"{len(names)} names but {len(means)} means")
    if len(set(names)) != len(names):
        raise ValueError("the names must differ")
    order = sorted(range(len(names)), key=lambda i: -means[i])
    ranked = [names[i] for i in order]
    tied: list[set[int]] = [set() for _ in ranked]
    for i in range(len(ranked)):
        for j in range(i + 1, len(ranked)):
            if not different(ranked[i], ranked[j]):
                tied[i].add(j)
                tied[j].add(i)
    found: list[list[int]] = []
    _cliques(set(), set(range(len(ranked))), set(), tied, found)
    return [[ranked[i] for i in group] for group in sorted(found)]


def _cliques(chosen: set[int], open_: set[int], closed: set[int], tied: list[set[int]], found: list[list[int]]) -> None:
    """Append to `found` every maximal clique that holds `chosen`, may take from `open_` and was not `closed`."""
    if not open_ and not closed:
        if chosen:
            found.append(sorted(chosen))
        return
    # What is tied with the pivot is reached through it; only the others need a branch of their own.
    pivot = max(open_ | closed, key=lambda i: len(tied[i] & open_))
    for i in sorted(open_ - tied[pivot]):
        _cliques(chosen | {i}, open_ & tied[i], closed & tied[i], tied, found)
        open_ = open_ - {i}
        closed = closed | {i}
