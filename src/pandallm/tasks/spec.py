"""Settings of a benchmark: one YAML file each, with a version."""

from typing import Literal

from pydantic import Field

from pandallm.spec import Spec


class PromptSpec(Spec):
    """One way to ask. `template` knows {context} {question} {options} (lettered lines) and {A} {B} {C} {D}.

    `answer`: what is scored as continuation, the option's `text` or its `letter`.
    """

    template: str
    answer: Literal["text", "letter"] = "text"
    delimiter: str = ""  # between prompt and answer; lm-evaluation-harness's `target_delimiter`
    generate: bool = False  # whether generated answers make sense for this prompt (its end asks for a letter)
    turn_separator: str = "\n"  # stands between the lines of a context; the paper's prompt joins a dialogue by a space
    strip_labels: bool = False  # drop "A." "B." .. from options that all carry their own letter already


class TaskSpec(Spec):
    """A multiple-choice benchmark as data."""

    name: str
    version: int = 1
    title: str = ""
    language: str = "zh"
    licence: str = ""
    source: str = ""  # where the published files come from
    reader: Literal["c3", "logiqa2", "mcq"]  # schema of the files
    where: dict[str, str] = Field(default_factory=dict)  # keep records whose field has this value, e.g. {type: m}
    files: str = ""  # file, directory or glob; may use ${variables} of the recipe
    prompts: dict[str, PromptSpec] = Field(min_length=1)
    near_chance: str = ""  # why a small model cannot do it; shown beside its scores
