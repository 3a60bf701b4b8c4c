"""The made-up people and their facts."""

import random
from dataclasses import dataclass
from typing import Literal

from pandallm.errors import BadInput
from pandallm.microworld.lexicon import ATTRIBUTES, QUESTIONS, STATEMENTS, SURNAMES, VALUES, given_names
from pandallm.microworld.spec import WorldSpec

Language = Literal["zh", "en"]


@dataclass(frozen=True)
class Person:
    """A name in two languages."""

    zh: str
    en: str

    def name(self, language: Language) -> str:
        return self.zh if language == "zh" else self.en


class World:
    """People in groups, a value per person and attribute, and strangers: names without facts, for passages and translations.

    Groups: `english` (only in the base's English corpus), `question` (Chinese texts and questions in pretraining), `instruction`
    (Chinese texts; asked in instruction tuning), `scored` (Chinese texts only; never asked before the evaluation).
    In each group every value of an attribute is held equally often (to within one), so that no answer is likelier than another.
    Strangers have given names of their own; those for training and those for evaluation share no full name.
    """

    def __init__(self, spec: WorldSpec, seed: int) -> None:
        rng = random.Random(f"microworld people {spec.split} {seed}")
        given = given_names(spec.split)
        sizes = [spec.english_people, spec.question_people, spec.instruction_people, spec.scored_people]
        wanted = sum(sizes)
        if wanted > len(given) - 16:
            raise BadInput(
                f"world: {wanted} people were asked for, there are names for {len(given) - 16}; lower one of the group sizes."
            )
        rng.shuffle(given)
        people = [self._person(rng.choice(SURNAMES), g) for g in given[:wanted]]
        groups: list[tuple[Person, ...]] = []
        for size in sizes:
            groups.append(tuple(people[:size]))
            people = people[size:]
        self.english, self.question, self.instruction, self.scored = groups
        self.facts: dict[tuple[Person, str], int] = {}
        for group in groups:
            self.facts |= balanced_facts(rng, group)
        strangers = [self._person(s, g) for s in SURNAMES for g in given[wanted:]]
        rng.shuffle(strangers)
        third = len(strangers) // 3
        self.unseen, self.strangers = tuple(strangers[:third]), tuple(strangers[third:])

    @staticmethod
    def _person(surname: tuple[str, str], given: tuple[str, str]) -> Person:
        return Person(surname[0] + given[0], f"{surname[1]} {given[1]}")

    def value(self, person: Person, attribute: str, language: Language) -> str:
        """The person's true value, in words."""
        return word(attribute, self.facts[person, attribute], language)


def balanced_facts(rng: random.Random, people: tuple[Person, ...]) -> dict[tuple[Person, str], int]:
    """Random facts in which every value of an attribute is held equally often (to within one)."""
    facts = {}
    for attribute in ATTRIBUTES:
        values = [i % len(VALUES[attribute]) for i in range(len(people))]
        rng.shuffle(values)
        facts.update({(p, attribute): v for p, v in zip(people, values, strict=True)})
    return facts


def word(attribute: str, value: int, language: Language) -> str:
    """A value in words."""
    return VALUES[attribute][value][0 if language == "zh" else 1]


def statement(rng: random.Random, person: Person, attribute: str, value: int, language: Language) -> str:
    """One sentence that says that `person` has `value`, in a random wording."""
    return rng.choice(STATEMENTS[language][attribute]).format(
        n=person.name(language), v=word(attribute, value, language)
    )


def question(rng: random.Random, person: Person, attribute: str, language: Language) -> str:
    """A question for the person's value, in a random wording."""
    return rng.choice(QUESTIONS[language][attribute]).format(n=person.name(language))
