"""What a run folder holds, read once. Nothing here computes a statistic."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput
from pandallm.store import read_json, read_jsonl

Json = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """The files of one run folder. Optional files that are missing are empty."""

    folder: Path
    manifest: Json
    scores: Json
    recipe_text: str
    recipe: Json
    metrics: Mapping[str, list[Json]]  # stage -> its lines, in the order of the manifest
    held_out: Mapping[str, list[Json]]  # the same of stages that watched held-out text
    corpora: Mapping[str, Json]  # corpus -> ledger
    packs: Mapping[str, "TokenLedger"]  # stage -> token ledger
    contamination: Mapping[str, Json]  # corpus -> what of it touches which question
    delta: Json
    plan: list[Json]  # predicted against actual of trained stages
    questions: Mapping[tuple[str, str], Json]  # (task, id) -> question
    rows: list[Json]

    @property
    def models(self) -> list[str]:
        """Names of the models, in the order in which they were evaluated."""
        return [str(m) for m in self.scores.get("models") or []]


@dataclass(frozen=True)
class TokenLedger:
    """Tokens of one stage: `unique = trained + masked + truncated + over_budget`, per source and in total."""

    sources: Mapping[str, Json]
    total: Json


def read_run(folder: Path, *, questions: bool = True) -> Run:
    """Read a run folder; `questions=False` leaves out the questions and their rows.

    Raises BadInput when the folder, its manifest.json or its scores.json is missing or when a file cannot be read.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a run folder; give the folder that `panda run` made, such as runs/NAME-seed1.")
    for name in ("manifest.json", "scores.json"):
        if not (folder / name).is_file():
            raise BadInput(
                f"{folder} holds no {name}, so there is nothing to report; finish a run that evaluates with `panda run` first."
            )
    manifest = _object(folder / "manifest.json")
    scores = _object(folder / "scores.json")
    _check_differences(folder / "scores.json", scores)
    # The manifest says `train pretrain`, the files are called `pretrain`.
    order = [str(stage.get("name")).removeprefix("train ") for stage in manifest.get("stages") or []]
    recipe_file = folder / "recipe.yaml"
    recipe_text = recipe_file.read_text(encoding="utf-8", errors="replace") if recipe_file.is_file() else ""
    ledgers = {p.stem: _object(p) for p in sorted((folder / "ledgers").glob("*.json"))}
    metrics = {p.stem: list(read_jsonl(p)) for p in sorted((folder / "metrics").glob("*.jsonl"))}
    held_out = {p.stem: list(read_jsonl(p)) for p in sorted((folder / "held_out").glob("*.jsonl"))}
    asked = _lines(folder / "questions.jsonl") if questions else []
    return Run(
        folder=folder,
        manifest=manifest,
        scores=scores,
        recipe_text=recipe_text,
        recipe=_yaml(recipe_file, recipe_text),
        metrics={name: metrics[name] for name in _ordered(metrics, order) if metrics[name]},
        held_out={name: held_out[name] for name in _ordered(held_out, order) if held_out[name]},
        corpora={name: ledger for name, ledger in ledgers.items() if not name.startswith("pack-")},
        packs={
            name: _token_ledger(ledgers["pack-" + name])
            for name in _ordered([n.removeprefix("pack-") for n in ledgers if n.startswith("pack-")], order)
        },
        contamination={p.stem: _object(p) for p in sorted((folder / "contamination").glob("*.json"))},
        delta=_object(folder / "delta.json") if (folder / "delta.json").is_file() else {},
        plan=_object(folder / "plan.json").get("stages") or [] if (folder / "plan.json").is_file() else [],
        questions={(str(q.get("task")), str(q.get("id"))): q for q in asked},
        rows=_lines(folder / "rows.jsonl") if questions else [],
    )


def interval_includes_chance(row: Mapping[str, Any]) -> bool:
    """Whether a stored interval holds the stored chance level."""
    chance, low, high = row.get("chance"), row.get("low"), row.get("high")
    return chance is not None and low is not None and high is not None and low <= chance <= high


def chance_levels(scores: Json, definition: Mapping[str, Any] | None) -> list[float]:
    """The different chance levels of the table's rows that a `SelectSpec` chooses, ascending; empty where none match."""
    if not definition:
        return []
    prompts = definition.get("prompts") or "all"
    chosen = [
        row["chance"]
        for row in scores.get("table") or []
        if row.get("task") in (definition.get("tasks") or ())
        and (prompts == "all" or row.get("prompt") in prompts)
        and (definition.get("group") is None or row.get("group") == definition["group"])
        and row.get("method") == (definition.get("method") or "likelihood")
        and row.get("chance") is not None
    ]
    return sorted(set(chosen))


def headline_models(scores: Json) -> Json:
    """Model -> headline score, in the order of `models`, without the controls."""
    headline = scores.get("headline") or {}
    order = [str(m) for m in scores.get("models") or []]
    return {
        name: headline[name] for name in _ordered([n for n in headline if n != "controls"], order) if headline[name]
    }


def headline_controls(scores: Json) -> Json:
    """Control -> score."""
    return {name: c for name, c in ((scores.get("headline") or {}).get("controls") or {}).items() if c}


def _ordered(names: Any, order: list[str]) -> list[str]:
    """Names in the given order, the others after them."""
    rank = {name: i for i, name in enumerate(order)}
    return sorted(names, key=lambda name: rank.get(name, len(rank)))


def _object(path: Path) -> Json:
    value = read_json(path)
    if not isinstance(value, dict):
        raise BadInput(f"{path} should hold a JSON object; make the run again.")
    return value


def _lines(path: Path) -> list[Json]:
    return list(read_jsonl(path)) if path.is_file() else []


def _yaml(path: Path, text: str) -> Json:
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise BadInput(
            f"{path} is not valid YAML ({' '.join(str(e).split())}); restore the file that the run wrote."
        ) from None
    return value if isinstance(value, dict) else {}


def _token_ledger(value: Json) -> TokenLedger:
    """Accepts the ledger alone or a whole `pack.json` around it."""
    ledger = value["ledger"] if isinstance(value.get("ledger"), dict) else value
    inner = ledger["sources"] if isinstance(ledger.get("sources"), dict) else ledger
    sources = {name: s for name, s in inner.items() if isinstance(s, dict) and name != "total"}
    total = ledger.get("total") or inner.get("total") or {}
    return TokenLedger(sources, total if isinstance(total, dict) else {})


def _check_differences(path: Path, scores: Json) -> None:
    """Refuse a headline difference of the wrong sign: a report must not say that the worse model is the better one."""
    headline = scores.get("headline") or {}
    for i, d in enumerate(scores.get("differences") or []):
        a, b = headline.get(d.get("a")), headline.get(d.get("b"))
        if d.get("what") != "headline" or not a or not b:
            continue
        forward = b["accuracy"] - a["accuracy"]
        if abs(forward) > 1e-6 and abs(d["difference"] + forward) < 1e-6:
            raise BadInput(f"{path}: differences[{i}] is a - b, but `difference` is defined as b - a; write it so.")
