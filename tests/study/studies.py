"""Study files for tests, on the built-in microworld."""

from pathlib import Path
from typing import Any

import yaml

from pandallm.study.load import StudyFile, load_study

#: The microworld, small enough for a test.
SMALL: dict[str, Any] = {
    "world.scored_people": 12,
    "world.english_people": 12,
    "world.question_people": 12,
    "world.instruction_people": 12,
    "world.english_documents": 300,
    "world.wiki_pages": 300,
    "world.news_articles": 200,
    "world.baike_questions": 120,
    "world.webtext_answers": 120,
    "world.translations": 120,
    "world.english_replay": 120,
    "world.instructions": 200,
    "base.scratch.architecture.hidden_size": 16,
    "base.scratch.architecture.layers": 1,
    "base.scratch.architecture.intermediate_size": 32,
    "base.scratch.train.steps": 3,
    "stages.pretrain.steps": 3,
    "stages.instruct.steps": 3,
    "evaluate.tasks": ["microworld-facts"],
    "evaluate.controls": {},
    "release": None,
}


def study(folder: Path, factors: dict[str, Any], **more: Any) -> StudyFile:
    """A study of the microworld with these factors, written to `folder` and read again."""
    path = folder / "study.yaml"
    settings = {"name": "small", "recipe": "microworld", "seeds": 2, "factors": factors, **more}
    path.write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return load_study(path)
