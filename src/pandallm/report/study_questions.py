"""The questions of a study's page: one pack per seed, as many seeds as there is room for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pandallm.report.questions import Answered, PackedQuestions, pack_questions
from pandallm.report.study_words import TEXT
from pandallm.report.text import LANGUAGES
from pandallm.report.write import script_texts

#: Of a page with its questions, in bytes.
MAX_PAGE = 2_950_000


class OfSeed(Answered, Protocol):
    """One seed's answers; `different`: questions that two arms ask in other words, which are left out."""

    @property
    def different(self) -> int: ...


@dataclass
class SeedPacks:
    """Seed -> its questions, packed; `left_out`: seeds for which there was no room; `different` as above, over the packed seeds."""

    packs: dict[int, PackedQuestions] = field(default_factory=dict)
    left_out: list[int] = field(default_factory=list)
    different: int = 0


def pack_seeds(answers: Mapping[int, Callable[[], OfSeed]], with_text: bool, room: int) -> SeedPacks:
    """Pack seed after seed into `room` characters; the first one is thinned where it does not fit, of the others only whole ones are taken."""
    texts: dict[str, Any] = script_texts() | {"seed": dict(zip(LANGUAGES, TEXT["one_seed"]))}
    found = SeedPacks()
    for seed, read in answers.items():
        if found.left_out:
            found.left_out.append(seed)
            continue
        of_seed = read()
        packed = pack_questions(of_seed, with_text, texts, room, thin=not found.packs)
        if len(packed.text) > room:
            found.left_out.append(seed)
        elif packed.total:
            found.packs[seed] = packed
            found.different += of_seed.different
            room -= len(packed.text) + 100  # its element
    return found
