"""Model cards: Markdown from stored results, with nothing in them that was not measured or written in the recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pandallm.release.data_card import contamination_lines, training_data
from pandallm.release.markdown import table, text

_PERCENT_NOTE = "Accuracy in percent, with its interval in brackets"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _between(entry: Mapping[str, Any], form: str, scale: float = 1.0) -> str:
    """The interval in brackets; a single cluster or document has none."""
    low, high = entry.get("low"), entry.get("high")
    return "(no interval)" if low is None or high is None else f"({scale * low:{form}} to {scale * high:{form}})"


def _interval(entry: Mapping[str, Any]) -> str:
    return f"{_percent(entry['accuracy'])} {_between(entry, '.1f', 100)}"


@dataclass(frozen=True)
class CardSources:
    """What a card is written from besides manifest, scores and recipe: files of a run folder. Empty where there is none.

    ledgers: corpus -> its ledger. packs: stage -> pack.json. contamination: corpus -> contamination.json.
    tasks: tasks.json. release: release.json of a release folder.
    """

    ledgers: Mapping[str, Any] = field(default_factory=dict)
    packs: Mapping[str, Any] = field(default_factory=dict)
    contamination: Mapping[str, Any] = field(default_factory=dict)
    tasks: Sequence[Mapping[str, Any]] = ()
    release: Mapping[str, Any] = field(default_factory=dict)


def model_card(
    manifest: Mapping[str, Any],
    scores: Mapping[str, Any],
    recipe: Mapping[str, Any],
    sources: CardSources = CardSources(),
) -> str:
    """The model card of a run, as Markdown.

    manifest, scores, recipe: `manifest.json`, `scores.json` and the resolved recipe of a run folder (see `docs/design.md`). What a
    file lacks is left out of the card, or said to be missing; nothing is computed anew and nothing is claimed beyond it.
    """
    release = sources.release
    lines = [f"# {text(manifest.get('name', 'A model'))}", ""]
    if recipe.get("description"):
        lines += [text(recipe["description"]), ""]
    lines += [
        f"Made by pandallm {text(manifest.get('pandallm', '(version not stored)'))}, seed {text(manifest.get('seed', 'not stored'))}, "
        f"in {_duration(float(manifest.get('work_seconds', manifest.get('seconds', 0))))}.",
        "",
    ]
    if release:
        lines += _use(release) + _licence(release)
    if recipe.get("base") is not None:
        lines += ["## Base", "", text(describe_base(recipe["base"])), ""]
    lines += _training(manifest, recipe)
    lines += training_data(recipe, sources.ledgers, sources.packs)
    if release and sources.ledgers:
        lines += ["What was dropped and why: `DATA.md`.", ""]
    lines += contamination_lines(sources.contamination)
    lines += ["## Results", "", *_headline(scores), *_results(scores)]
    lines += _bits_per_byte(scores)
    lines += _benchmarks(sources.tasks)
    lines += _made_on(manifest)
    lines += [
        "## Limits",
        "",
        "The figures above are all that was measured. Nothing is known here about safety, bias, or tasks that are not listed; "
        "use of the weights is bound by the licences of the base and of the training data.",
        "",
    ]
    return "\n".join(lines)


def describe_base(base: Any) -> str:
    """A recipe's `base` in words."""
    if not isinstance(base, Mapping):
        return str(base)
    if scratch := base.get("scratch"):
        a, first = scratch["architecture"], scratch["train"]
        return (
            f"A Llama made from scratch: {a['layers']} layers of width {a['hidden_size']}, a tokenizer of at most "
            f"{scratch['tokenizer']['size']} tokens; first pretraining on the corpus '{first['corpus']}'."
        )
    flat: dict[str, Any] = {}
    for name, value in base.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{k}": v for k, v in value.items()}
        else:
            flat[name] = value
    return ", ".join(f"{k}: {v}" for k, v in flat.items())


def _use(release: Mapping[str, Any]) -> list[str]:
    lines = ["## Use", ""]
    folder = "."
    if release["ship"] == "delta":
        base = release["base"]
        folder = "tuned"
        where = text(base["source"]) + (f" (revision {text(base['revision'])})" if base.get("revision") else "")
        lines += [
            "This folder holds a weight delta, not weights. With the base's folder and pandallm the weights come back bit for bit, or an "
            f"error says what is wrong. The base: {where.rstrip('.')}"
            + (
                "; its folder is `models/base` of the run, and it is not published here."
                if base["licence_class"] == "own"
                else "."
            ),
            "",
            "```sh",
            "panda delta apply BASE-FOLDER . tuned",
            "```",
            "",
        ]
    lines += [
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'model = AutoModelForCausalLM.from_pretrained("{folder}")',
        f'tokenizer = AutoTokenizer.from_pretrained("{folder}")',
        "```",
        "",
        "`panda verify .` checks every file, the cards and the scores of this folder"
        + ("; with `--base BASE-FOLDER` the delta too." if release["ship"] == "delta" else "."),
        "",
    ]
    return lines


def _licence(release: Mapping[str, Any]) -> list[str]:
    base = release["base"]
    lines = ["## Licence", ""]
    if base.get("licence_class") == "own":
        lines += [f"Published under: {text(release['publish_as'] or 'not stated')}. {text(release['why'])}", ""]
    else:
        lines += [
            f"Published under: {text(release['publish_as'] or 'not stated')}. Licence of the base: {text(base['licence'])}. {text(release['why'])}",
            "",
        ]
    if release.get("notice"):
        lines += [text(release["notice"]), ""]
    return lines


def _training(manifest: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[str]:
    stages = [s for s in manifest.get("stages", []) if "trained_tokens" in s.get("facts", {})]
    if not stages:
        return []
    settings = dict(recipe.get("stages") or {})
    base = recipe.get("base")
    if isinstance(base, Mapping) and base.get("scratch"):
        settings["base"] = base["scratch"]["train"]
    rows = []
    for stage in stages:
        facts, of = stage["facts"], settings.get(stage["name"].removeprefix("train "), {})
        rows.append(
            (
                stage["name"].removeprefix("train "),
                of.get("from", ""),
                of.get("corpus", ""),
                facts.get("steps", ""),
                f"{facts['trained_tokens']:,}",
                of.get("batch_sequences", ""),
                of.get("sequence_length", ""),
                (of.get("optimizer") or {}).get("lr", ""),
                _loss(facts.get("final_loss")),
                _duration(float(stage.get("made_in_seconds", 0))),
            )
        )
    head = (
        "stage",
        "from",
        "corpus",
        "steps",
        "trained tokens",
        "sequences a step",
        "tokens a sequence",
        "learning rate",
        "final loss",
        "time",
    )
    return ["## Training", "", *table(head, rows)]


def _headline(scores: Mapping[str, Any]) -> list[str]:
    headline = dict(scores.get("headline") or {})
    controls = headline.pop("controls", None) or {}
    if not headline:
        return []
    chosen = scores.get("headline_definition") or {}
    prompts = chosen.get("prompts")
    how = f"{', '.join(chosen.get('tasks') or ())}; prompts {prompts if isinstance(prompts, str) else ', '.join(prompts or ())}; {chosen.get('method', '')}"
    rows = [(name, e["n"], e.get("clusters", ""), _interval(e), "") for name, e in headline.items()]
    rows += [
        (
            f"control: {name}",
            e["n"],
            e.get("clusters", ""),
            _interval(e),
            _percent(e["chance"]) if e.get("chance") is not None else "",
        )
        for name, e in controls.items()
    ]
    return [
        f"Headline, named in the recipe ({text(how)}):",
        "",
        *table(("model", "questions", "clusters", "accuracy", "chance"), rows),
    ]


def _benchmarks(tasks: Sequence[Mapping[str, Any]]) -> list[str]:
    if not tasks:
        return []
    rows = [
        (t.get("title") or t["name"], t.get("version", ""), t.get("split", ""), t.get("licence") or "not stated")
        for t in tasks
    ]
    return ["Benchmarks:", "", *table(("task", "version", "split", "licence"), rows)]


def _made_on(manifest: Mapping[str, Any]) -> list[str]:
    machine, versions = manifest.get("machine") or {}, manifest.get("versions") or {}
    if not machine and not versions:
        return []
    parts = [
        f"{machine[name]} {unit}".strip()
        for name, unit in (("gpu", ""), ("processor", ""), ("cores", "cores"), ("memory_gib", "GiB of memory"))
        if machine.get(name)
    ]
    lines = ["## Made on", ""]
    if parts:
        lines += [text(", ".join(parts)) + "."]
    lines += [
        f"All stages took {_duration(float(manifest.get('work_seconds', 0)))} together, started {text(manifest.get('started', '(not stored)'))}."
    ]
    if manifest.get("peak_memory_gib"):
        lines += [f"Largest memory of the main process: {manifest['peak_memory_gib']} GiB."]
    if versions:
        lines += [text(", ".join(f"{k} {v}" for k, v in versions.items())) + "."]
    return [*lines, ""]


def _duration(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 3600 else f"{seconds / 3600:,.1f} h"


def _holds_chance(row: Mapping[str, Any]) -> bool:
    low, chance, high = (row.get(name) for name in ("low", "chance", "high"))
    return low is not None and chance is not None and high is not None and low <= chance <= high


def _loss(value: Any) -> str:
    return "" if value is None else f"{value:.3f}"


def _results(scores: Mapping[str, Any]) -> list[str]:
    scored = scores.get("table") or []
    if not scored:
        return ["No benchmark was run.", ""]
    confidence = scores.get("confidence")
    note = f" ({_percent(confidence)} % confidence)" if confidence is not None else ""
    lines = [f"{_PERCENT_NOTE}{note}; `near chance` where the interval holds the score of guessing.", ""]
    lines += table(
        ("model", "task", "prompt", "method", "questions", "accuracy", "chance", "unparsed", ""),
        (
            (
                r["model"],
                r.get("title") or r["task"],
                r.get("prompt", ""),
                r.get("method", ""),
                r["n"],
                _interval(r),
                _percent(r["chance"]) if r.get("chance") is not None else "",
                _percent(r["unparsed"]) if r.get("unparsed") else "",
                "near chance" if _holds_chance(r) else "",
            )
            for r in scored
        ),
    )
    differences = scores.get("differences") or []
    if differences:
        lines += ["Paired differences, in percentage points:", ""]
        lines += table(
            ("from", "to", "on", "difference", "p"),
            (
                (
                    d["a"],
                    d["b"],
                    d.get("what", ""),
                    f"{100 * d['difference']:+.1f} {_between(d, '+.1f', 100)}",
                    f"{d['p']:.2g}" if d.get("p") is not None else "",
                )
                for d in differences
            ),
        )
    return lines


def _bits_per_byte(scores: Mapping[str, Any]) -> list[str]:
    rows = scores.get("bits_per_byte") or []
    if not rows:
        return []
    lines = ["Bits per UTF-8 byte of held-out text; lower is better:", ""]
    return lines + table(
        ("model", "corpus", "source", "language", "documents", "bits per byte"),
        (
            (
                r["model"],
                r.get("corpus", ""),
                r.get("source", ""),
                r.get("language", ""),
                r.get("documents", ""),
                f"{r['bits_per_byte']:.3f} {_between(r, '.3f')}",
            )
            for r in rows
        ),
    )
