"""Settings of a benchmark: one YAML file each, with a version."""

from typing import Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

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
    unconditional: str = ""  # prompt of the unconditional score; "": what stands after the template's last placeholder
    few_shot: str = "\n\n"  # stands between the worked examples, and between them and the question


class FieldsSpec(Spec):
    """Names of the columns or keys of a user's file (`reader: mapped`); `a.b` is key b of the object in a."""

    question: str = "question"
    options: str | tuple[str, ...] = "options"  # one list column, or one column per option
    answer: str = "answer"
    answer_is: Literal["auto", "letter", "index", "number", "text"] = "auto"  # index counts from 0, number from 1
    context: str = ""
    id: str = ""  # none: the file's name and the record's place in it
    cluster: str = ""
    group: str = ""


class HubSpec(Spec):
    """A data set on the Hugging Face hub."""

    repo: str
    revision: str = "main"
    files: tuple[str, ...] = ()  # patterns of the files to fetch; none: all


class TaskSpec(Spec):
    """A multiple-choice benchmark as data.

    `patterns`: split -> names under which its files are looked for, best first; `a|b` means both together; a name
    with .gz or .zst added is found too. `urls` and `sha256` likewise by split; a zip is unpacked.
    `defects`: what happens to a record that cannot be scored cleanly, see `tasks.read.read_task`.
    """

    name: str
    version: int = 1
    title: str = ""
    language: str = "zh"
    licence: str = ""
    source: str = ""  # where the published files come from
    reader: Literal["c3", "logiqa2", "mcq", "mapped", "ceval", "cmmlu", "gaokao", "agieval"]  # schema of the files
    fields: FieldsSpec | None = None  # `reader: mapped` only
    where: dict[str, str] = Field(default_factory=dict)  # keep records whose field has this value, e.g. {type: m}
    subjects: bool = False  # groups are subjects of one benchmark, which is scored as a whole too
    passage: bool = False  # every question needs a passage
    defects: Literal["refuse", "drop", "keep"] = "refuse"
    split: str = ""  # the split that is read: the YAML's default or the user's NAME:SPLIT
    examples: str = ""  # worked examples for few-shot prompts: a split of this task, or a file
    files: str = ""  # file, directory or glob; may use ${variables} of the recipe
    patterns: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    urls: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    hub: HubSpec | None = None
    sha256: dict[str, str] = Field(default_factory=dict)  # `locate.digest_of` the split's files
    questions: dict[str, int] = Field(default_factory=dict)  # questions that the published split has for us
    prompts: dict[str, PromptSpec] = Field(min_length=1)
    near_chance: str = ""  # why a small model cannot do it; shown beside its scores

    @model_validator(mode="after")
    def _fields_go_with_mapped(self) -> "TaskSpec":
        if (self.reader == "mapped") != (self.fields is not None):
            raise PydanticCustomError(
                "fields", "'fields' names the columns of a file read with 'reader: mapped'; give both or neither"
            )
        return self
