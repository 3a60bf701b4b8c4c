"""Settings of the built-in synthetic world."""

from typing import Literal

from pydantic import Field

from pandallm.spec import Spec


class WorldSpec(Spec):
    """Sizes of the world. People are split into disjoint groups: what tunes the recipe is never what is reported."""

    split: Literal["dev", "test"] = "test"  # whose names: `dev` while tuning, `test` for what is reported
    english_people: int = Field(24, gt=0)  # only in the base's English corpus
    question_people: int = Field(24, gt=0)  # asked about in pretraining
    instruction_people: int = Field(24, gt=0)  # asked about in instruction tuning
    scored_people: int = Field(72, gt=0)  # asked about in the evaluation only
    english_documents: int = Field(5000, gt=0)
    wiki_pages: int = Field(4200, gt=0)
    news_articles: int = Field(2200, gt=0)
    baike_questions: int = Field(900, gt=0)
    webtext_answers: int = Field(500, gt=0)
    translations: int = Field(600, gt=0)
    english_replay: int = Field(900, gt=0)
    instructions: int = Field(1500, gt=0)
    # Share of the records of wiki, news, baike and webtext that repeat others: one record in fifty, so again and again, as reposts do.
    # Every second copy is word for word, the others say that they are reposts.
    copies: float = Field(0.0, ge=0, lt=1)
    # Share of the exam instructions whose answer is one of the wrong options; what is wrong at a share is wrong at every larger one.
    wrong_answers: float = Field(0.0, ge=0, le=1)
    # Share of the exam instructions that are asked and answered in English; what is English at a share is English at every larger one.
    english_instructions: float = Field(0.0, ge=0, le=1)
