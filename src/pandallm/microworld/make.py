"""Writing a world to files."""

from pathlib import Path
from typing import Any

from pandallm.microworld.corpora import corpora
from pandallm.microworld.lexicon import ATTRIBUTES
from pandallm.microworld.questions import questions
from pandallm.microworld.spec import WorldSpec
from pandallm.microworld.world import World
from pandallm.progress import SILENT, Progress
from pandallm.store import write_json, write_jsonl

#: Name of the number that each published schema gives its records.
_NUMBERS = {
    "wiki2019zh": ("id",),
    "news2016zh": ("news_id",),
    "baike2018qa": ("qid",),
    "webtext2019zh": ("qid", "answer_id"),
}


def make_world(spec: WorldSpec, seed: int, out: Path, progress: Progress = SILENT) -> dict[str, object]:
    """Write the corpora, the instructions and the questions of one world below `out`.

    `corpora/*/` and `instructions/coig/` hold JSON lines in the published schemas, `questions/*.jsonl` the `mcq` schema, `people.json`
    every person's group and facts. The same spec and seed give the same bytes. Returns counts: {"people", "scored_facts", "records":
    {path: n}}. Raises BadInput for sizes that the names or the sentences cannot fill.
    """
    world = World(spec, seed)
    files = {**corpora(world, spec, seed), **questions(world, spec, seed)}
    with progress.task("world", len(files), "files") as task:
        for path, records in files.items():
            names = _NUMBERS.get(Path(path).parent.name, ())
            write_jsonl(out / path, (_numbered(record, names, i) for i, record in enumerate(records)))
            task.advance()
        write_json(out / "people.json", _people(world))
    return {
        "people": sum(len(g) for g in _groups(world).values()),
        "scored_facts": len(world.scored) * len(ATTRIBUTES),
        "records": {path: len(records) for path, records in files.items()},
    }


def _numbered(record: dict[str, Any], names: tuple[str, ...], number: int) -> dict[str, Any]:
    added: dict[str, Any] = {name: str(number) for name in names}
    if "id" in names:
        added["url"] = f"https://example.org/wiki?curid={number}"
    return {**added, **record}


def _groups(world: World) -> dict[str, Any]:
    return {
        "english": world.english,
        "question": world.question,
        "instruction": world.instruction,
        "scored": world.scored,
    }


def _people(world: World) -> list[dict[str, Any]]:
    return [
        {"zh": p.zh, "en": p.en, "group": name, "facts": {a: world.value(p, a, "en") for a in ATTRIBUTES}}
        for name, group in _groups(world).items()
        for p in group
    ]
