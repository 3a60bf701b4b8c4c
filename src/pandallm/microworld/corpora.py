"""Texts about the world, in the schemas that the published corpora have.

English for the base; the five Chinese corpora of the paper's first stage (wiki2019zh, news2016zh, baike2018qa, webtext2019zh,
translation2019zh) and an English replay for continued pretraining; COIG's exam and translated instructions for the second stage.
A builder draws records until it has the wanted number without a repeat, so that exact deduplication finds nothing to drop but what `copies` repeats.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

from pandallm.errors import BadInput
from pandallm.microworld.lexicon import (
    ALONE,
    ALONE_ENGLISH,
    ANSWER_OPENINGS,
    ATTRIBUTES,
    LISTED,
    LISTED_ENGLISH,
    NEWS_OPENINGS,
    QUESTION_OPENINGS,
    READING,
    READING_ENGLISH,
    REPOSTS,
    VALUES,
)
from pandallm.microworld.spec import WorldSpec
from pandallm.microworld.world import Language, Person, World, question, statement, word

Record = dict[str, Any]
#: Context and question in English, worded by the stream that is given.
English = Callable[[random.Random], tuple[str, str]]


def distinct(count: int, draw: Callable[[], Record], what: str) -> list[Record]:
    """`count` different records. Raises BadInput when the world is too small to give that many."""
    seen: dict[str, Record] = {}
    for _ in range(count * 60):
        if len(seen) == count:
            break
        record = draw()
        seen.setdefault(repr(record), record)
    if len(seen) < count:
        raise BadInput(
            f"world.{what}: {count} were asked for, only {len(seen)} different ones came up; lower it or add people."
        )
    return list(seen.values())


#: The field of a record that a repost adds its mark to; only these corpora have copies.
_REPOSTED = {"wiki2019zh": "text", "news2016zh": "content", "baike2018qa": "answer", "webtext2019zh": "content"}
#: One record in so many is copied.
_COPIED = 50


def with_copies(records: list[Record], share: float, field: str, rng: random.Random) -> list[Record]:
    """As many records, of which `share` repeat one in fifty of the others, in random order: every second word for word, the others with a mark in `field`."""
    kept = records[: len(records) - round(share * len(records))]
    copied = rng.sample(kept, max(1, len(kept) // _COPIED))
    made = list(kept)
    for i in range(len(records) - len(kept)):
        copy = dict(rng.choice(copied))
        if i % 2:
            copy[field] += rng.choice(REPOSTS)
        made.append(copy)
    rng.shuffle(made)
    return made


def _joined(language: Language, parts: Sequence[str]) -> str:
    return ("" if language == "zh" else " ").join(parts)


class Writer:
    """Draws texts of one world from one random stream."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        self.wrong_answers = self.english_instructions = 0.0  # shares of the exam's instructions

    # ---- building blocks

    def biography(self, person: Person, language: Language) -> str:
        """Three or four facts of one person, in any order and wording."""
        attributes = self.rng.sample(ATTRIBUTES, self.rng.choice([3, 4]))
        facts = self.world.facts
        return _joined(language, [statement(self.rng, person, a, facts[person, a], language) for a in attributes])

    def passage(
        self, people: Sequence[Person], count: int, language: Language
    ) -> tuple[list[Person], str, list[int], str]:
        """Strangers with different, made-up values of one attribute: people, attribute, values, text."""
        chosen = self.rng.sample(people, count)
        attribute = self.rng.choice(ATTRIBUTES)
        values = self.rng.sample(range(len(VALUES[attribute])), count)
        lines = [statement(self.rng, p, attribute, v, language) for p, v in zip(chosen, values, strict=True)]
        return chosen, attribute, values, _joined(language, lines)

    def recap(self, language: Language) -> str:
        """A passage, then its statements again in another order: what was said in the text can be used in the text."""
        people, attribute, values, text = self.passage(self.world.strangers, self.rng.choice([2, 3]), language)
        order = self.rng.sample(range(len(people)), len(people))
        again = [statement(self.rng, people[i], attribute, values[i], language) for i in order]
        return _joined(language, [text, "总之，" if language == "zh" else "In short,", *again])

    # ---- English

    def english(self, asked: Sequence[Person]) -> Record:
        x = self.rng.random()
        if x < 0.45:
            text = self.biography(self.rng.choice(self.world.english), "en")
        elif x < 0.65:
            person = self.rng.choice(asked)
            attributes = self.rng.sample(ATTRIBUTES, self.rng.choice([1, 2, 3]))
            text = " ".join(
                f"Question: {question(self.rng, person, a, 'en')} Answer: {self.world.value(person, a, 'en')}."
                for a in attributes
            )
        elif x < 0.80:
            text = self.recap("en")
        else:
            people, attribute, values, text = self.passage(self.world.strangers, self.rng.choice([2, 3]), "en")
            for i in self.rng.sample(range(len(people)), 2):
                text += f"\nQuestion: {question(self.rng, people[i], attribute, 'en')} Answer: {word(attribute, values[i], 'en')}."
        return {"text": text}

    # ---- Chinese, the five corpora

    def wiki(self, subjects: Sequence[Person], asked: Sequence[Person]) -> Record:
        """Two thirds pages about people, the rest pages of questions and answers, with a few passages."""
        x = self.rng.random()
        if x < 0.62:
            person = self.rng.choice(subjects)
            title, text = person.zh, self.biography(person, "zh")
        elif x < 0.94:
            person = self.rng.choice(asked)
            attribute = self.rng.choice(ATTRIBUTES)
            title, text = (
                f"问题：{question(self.rng, person, attribute, 'zh')}",
                f"答案：\n{self.world.value(person, attribute, 'zh')}。",
            )
            for a in self.rng.sample(ATTRIBUTES, self.rng.choice([0, 1, 2])):
                person = self.rng.choice(asked)
                text += f"\n问题：{question(self.rng, person, a, 'zh')}\n答案：\n{self.world.value(person, a, 'zh')}。"
        else:
            title, text = "名录", self.recap("zh")
        return {"title": title, "text": f"{title}\n{text}"}

    def news(self, subjects: Sequence[Person]) -> Record:
        person = self.rng.choice(subjects)
        content = self.rng.choice(NEWS_OPENINGS) + self.biography(person, "zh")
        return {
            "keywords": "",
            "desc": "",
            "title": person.zh,
            "source": "小城日报",
            "time": "03-28 13:00",
            "content": content,
        }

    def baike(self, asked: Sequence[Person]) -> Record:
        """Questions answered by the value alone; one in five is about a passage given as description."""
        description = ""
        if self.rng.random() < 0.8:
            person, attribute = self.rng.choice(asked), self.rng.choice(ATTRIBUTES)
            value = self.world.facts[person, attribute]
            title = self.rng.choice(QUESTION_OPENINGS) + question(self.rng, person, attribute, "zh")
        else:
            people, attribute, values, description = self.passage(self.world.strangers, self.rng.choice([2, 3]), "zh")
            i = self.rng.randrange(len(people))
            title, value = question(self.rng, people[i], attribute, "zh"), values[i]
        return {"category": "人物", "title": title, "desc": description, "answer": word(attribute, value, "zh") + "。"}

    def webtext(self, asked: Sequence[Person]) -> Record:
        """Forum questions answered by sentences."""
        person = self.rng.choice(asked)
        attribute, *more = self.rng.sample(ATTRIBUTES, self.rng.choice([1, 2]))
        content = self.rng.choice(ANSWER_OPENINGS)
        for a in (attribute, *more):
            content += statement(self.rng, person, a, self.world.facts[person, a], "zh")
        title = question(self.rng, person, attribute, "zh")
        return {"title": title, "desc": "", "topic": "人物", "star": 3, "content": content, "answerer_tags": ""}

    def translation(self) -> Record:
        """Names, words and made-up sentences about strangers, so that no scored fact is told here."""
        x, person = self.rng.random(), self.rng.choice(self.world.strangers)
        attribute = self.rng.choice(ATTRIBUTES)
        value = self.rng.randrange(len(VALUES[attribute]))
        if x < 0.25:
            return {"english": person.en, "chinese": person.zh}
        english = statement(self.rng, person, attribute, value, "en")
        return {"english": english, "chinese": statement(self.rng, person, attribute, value, "zh")}

    # ---- instructions

    def exam(self) -> Record:
        """COIG exam: most are multiple choice about known people, then questions alone, passages, rules."""
        x = self.rng.random()
        context, options = "", []
        if x < 0.8:
            person, attribute = self.rng.choice(self.world.instruction), self.rng.choice(ATTRIBUTES)
            value, asked = self.world.facts[person, attribute], question(self.rng, person, attribute, "zh")
            options = options_around(self.rng, attribute, value)

            def of_person(rng: random.Random) -> tuple[str, str]:
                return "", question(rng, person, attribute, "en")

            english: English = of_person
        elif x < 0.92:
            people, attribute, values, context = self.passage(self.world.strangers, 4, "zh")
            i = self.rng.randrange(4)
            value, asked, options = values[i], question(self.rng, people[i], attribute, "zh"), list(values)

            def of_passage(rng: random.Random) -> tuple[str, str]:
                told = [statement(rng, p, attribute, v, "en") for p, v in zip(people, values, strict=True)]
                return " ".join(told), question(rng, people[i], attribute, "en")

            english = of_passage
        else:
            context, asked, attribute, options, value, english = self.rule(self.world.strangers)
        self.rng.shuffle(options)
        texts = [word(attribute, v, "zh") for v in options]
        template = ALONE if x < 0.18 else READING if context else LISTED
        prompt = template.format(question=asked, context=context, **dict(zip("ABCD", texts, strict=True)))
        # By the prompt, not from the writer's stream: the other prompts stay those of a world without wrong or English ones.
        if self.wrong_answers:
            noise = random.Random(f"wrong answer {prompt}")
            if noise.random() < self.wrong_answers:
                shown = range(len(VALUES[attribute])) if template == ALONE else sorted(options)
                value = noise.choice([v for v in shown if v != value])
        language: Language = "zh"
        if self.english_instructions:
            wording = random.Random(f"english {prompt}")
            if wording.random() < self.english_instructions:
                language = "en"
                context, asked = english(wording)
                template = ALONE_ENGLISH if x < 0.18 else READING_ENGLISH if context else LISTED_ENGLISH
                texts = [word(attribute, v, "en") for v in options]
                prompt = template.format(question=asked, context=context, **dict(zip("ABCD", texts, strict=True)))
        return {
            "textbox_q_instruction": "",
            "textbox_q_context": "",
            "textbox_question": prompt,
            "textbox_answer": word(attribute, value, language),
            "textbox_answer_analysis": "",
        }

    def rule(self, people: Sequence[Person]) -> tuple[str, str, str, list[int], int, English]:
        """Every job eats or keeps one thing; a stranger has one of the jobs: context, question, attribute, options, value, the same in English."""
        attribute, verb, does = self.rng.choice([("food", "爱吃", "likes to eat"), ("pet", "养", "keeps a")])
        jobs = self.rng.sample(range(len(VALUES["job"])), 4)
        values = self.rng.sample(range(len(VALUES[attribute])), 4)
        rules = list(zip(jobs, values, strict=True))
        text = "".join(f"所有{word('job', j, 'zh')}都{verb}{word(attribute, v, 'zh')}。" for j, v in rules)
        person, i = self.rng.choice(people), self.rng.randrange(4)
        text += statement(self.rng, person, "job", jobs[i], "zh")

        def english(rng: random.Random) -> tuple[str, str]:
            told = [f"Every {word('job', j, 'en')} {does} {word(attribute, v, 'en')}." for j, v in rules]
            told.append(statement(rng, person, "job", jobs[i], "en"))
            return " ".join(told), question(rng, person, attribute, "en")

        return text, question(self.rng, person, attribute, "zh"), attribute, list(values), values[i], english

    def translated(self) -> Record:
        """COIG translated instructions: translate a sentence."""
        pair = self.translation()
        return {
            "instruction": "Translate into Chinese.",
            "input": pair["english"],
            "output": pair["chinese"],
            "trans_instruction": "翻译成中文。",
            "trans_input": pair["english"],
            "trans_output": pair["chinese"],
        }


def options_around(rng: random.Random, attribute: str, value: int, count: int = 4) -> list[int]:
    """`count` values with `value` among them, in random order; the others are drawn evenly."""
    others = [v for v in range(len(VALUES[attribute])) if v != value]
    options = [value, *rng.sample(others, count - 1)]
    rng.shuffle(options)
    return options


def corpora(world: World, spec: WorldSpec, seed: int) -> dict[str, list[Record]]:
    """All corpora and instructions: path below the world's folder -> records."""

    def writer(name: str) -> Writer:
        return Writer(world, random.Random(f"microworld {name} {spec.split} {seed}"))

    subjects = (*world.question, *world.instruction, *world.scored)
    # Half of the people of the instructions are asked about in pretraining too, so that their answers can be recalled in stage 2.
    asked = (*world.question, *world.instruction[: len(world.instruction) // 2])
    english, wiki, news, baike = (writer(n) for n in ("english", "wiki", "news", "baike"))
    webtext, translation, replay = (writer(n) for n in ("webtext", "translation", "replay"))
    exam, translated = writer("exam"), writer("translated")
    exam.wrong_answers, exam.english_instructions = spec.wrong_answers, spec.english_instructions
    half = world.english[: max(1, len(world.english) // 2)]
    translations = spec.instructions * 15 // 100
    made = {
        "corpora/english/english.jsonl": distinct(
            spec.english_documents, lambda: english.english(half), "english_documents"
        ),
        "corpora/wiki2019zh/wiki.json": distinct(spec.wiki_pages, lambda: wiki.wiki(subjects, asked), "wiki_pages"),
        "corpora/news2016zh/news.json": distinct(spec.news_articles, lambda: news.news(subjects), "news_articles"),
        "corpora/baike2018qa/baike.json": distinct(spec.baike_questions, lambda: baike.baike(asked), "baike_questions"),
        "corpora/webtext2019zh/webtext.json": distinct(
            spec.webtext_answers, lambda: webtext.webtext(asked), "webtext_answers"
        ),
        "corpora/translation2019zh/translation.json": distinct(
            spec.translations, translation.translation, "translations"
        ),
        "corpora/replay/english.jsonl": distinct(spec.english_replay, lambda: replay.english(half), "english_replay"),
        "instructions/coig/exam.jsonl": distinct(spec.instructions - translations, exam.exam, "instructions"),
        "instructions/coig/translated.jsonl": distinct(translations, translated.translated, "instructions"),
    }
    if spec.copies:
        for path, records in made.items():
            if field := _REPOSTED.get(path.split("/")[1]):
                rng = random.Random(f"microworld copies {path} {spec.split} {seed}")
                made[path] = with_copies(records, spec.copies, field, rng)
    return made
