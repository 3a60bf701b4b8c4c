"""Questions about the world: the scored task, the labelled ones near chance, and the controls.

All have four options, so chance is 1/4. Why the controls have exactly that expectation, whatever the model:

- never seen: the people occur in no training text and their facts are drawn after the texts, so the answer is independent of
  everything that the model has read; every option is as likely as another to be the one marked.
- shuffled: the marked answer is another person's value. Four values that the person does *not* hold are drawn, and one of them is
  marked at random; given the prompt, each option is marked with probability 1/4. A model that scores above that here would show a
  fault of the scoring, not knowledge.
- options only: the facts' options without the question (the task `microworld-options` reads the file of the facts with a prompt
  that leaves the question out). Values are balanced among the scored people and the other three options are drawn evenly from the rest,
  so that a set of options does not tell which of them is true.
"""

import random
from collections.abc import Iterable, Mapping
from typing import Any

from pandallm.microworld.corpora import Writer, options_around
from pandallm.microworld.lexicon import ATTRIBUTES, VALUES
from pandallm.microworld.spec import WorldSpec
from pandallm.microworld.world import Person, World, balanced_facts, question, word

Question = dict[str, Any]
#: Questions of the tasks that are near chance at this size.
PASSAGES = 120
#: People of the never-seen control.
STRANGERS = 48


def _question(
    id: str, cluster: str, group: str, asked: str, attribute: str, options: list[int], value: int, context: str = ""
) -> Question:
    return {
        "id": id,
        "cluster": cluster,
        "group": group,
        "context": context,
        "question": asked,
        "options": [word(attribute, v, "zh") for v in options],
        "answer": options.index(value),
    }


def about_people(
    rng: random.Random, name: str, people: Iterable[Person], facts: Mapping[tuple[Person, str], int]
) -> list[Question]:
    """One question per person and attribute; the cluster is the person."""
    made = []
    for number, person in enumerate(people):
        for attribute in ATTRIBUTES:
            value = facts[person, attribute]
            options = options_around(rng, attribute, value)
            asked = question(rng, person, attribute, "zh")
            made.append(
                _question(f"{name}-{number:03d}-{attribute}", person.zh, name, asked, attribute, options, value)
            )
    return made


def shuffled(rng: random.Random, people: Iterable[Person], facts: Mapping[tuple[Person, str], int]) -> list[Question]:
    """As `about_people`, with four values that the person does not hold, one of them marked at random."""
    made = []
    for number, person in enumerate(people):
        for attribute in ATTRIBUTES:
            options = rng.sample([v for v in range(len(VALUES[attribute])) if v != facts[person, attribute]], 4)
            asked, marked = question(rng, person, attribute, "zh"), rng.choice(options)
            made.append(
                _question(
                    f"shuffled-{number:03d}-{attribute}", person.zh, "shuffled", asked, attribute, options, marked
                )
            )
    return made


def reading(rng: random.Random, writer: Writer) -> list[Question]:
    """The answer stands in a passage about four strangers; the cluster is the passage."""
    made = []
    for number in range(PASSAGES):
        people, attribute, options, context = writer.passage(writer.world.unseen, 4, "zh")
        i = rng.randrange(4)
        value, asked = options[i], question(rng, people[i], attribute, "zh")
        rng.shuffle(options)
        id = f"reading-{number:03d}"
        made.append(_question(id, id, "reading", asked, attribute, options, value, context))
    return made


def rules(rng: random.Random, writer: Writer) -> list[Question]:
    """The answer follows from a rule and a fact of the passage; the cluster is the passage."""
    made = []
    for number in range(PASSAGES):
        context, asked, attribute, options, value, _ = writer.rule(writer.world.unseen)
        rng.shuffle(options)
        id = f"rules-{number:03d}"
        made.append(_question(id, id, "rules", asked, attribute, options, value, context))
    return made


def questions(world: World, spec: WorldSpec, seed: int) -> dict[str, list[Question]]:
    """All questions: path below the world's folder -> records in the `mcq` schema."""
    rng = random.Random(f"microworld questions {spec.split} {seed}")
    writer = Writer(world, rng)
    strangers = world.unseen[:STRANGERS]
    return {
        "questions/facts.jsonl": about_people(rng, "facts", world.scored, world.facts),
        "questions/never_seen.jsonl": about_people(rng, "never_seen", strangers, balanced_facts(rng, strangers)),
        "questions/shuffled.jsonl": shuffled(rng, world.scored, world.facts),
        "questions/reading.jsonl": reading(rng, writer),
        "questions/rules.jsonl": rules(rng, writer),
    }
