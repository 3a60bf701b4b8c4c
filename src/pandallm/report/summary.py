"""The plain-language summary: stored numbers in sentences, claiming no more than their intervals show."""

from collections.abc import Mapping, Sequence
from typing import Any

from pandallm.report.run import Json, Run, chance_levels, headline_controls, headline_models, interval_includes_chance
from pandallm.report.text import language_name, p_value, percent, signed

Sentence = tuple[str, str]


def summary(run: Run) -> list[Sentence]:
    """Sentences in English and Chinese, in the order in which they should be read."""
    scores = run.scores
    definition = scores.get("headline_definition") or {}
    models, controls = headline_models(scores), headline_controls(scores)
    sentences: list[Sentence] = []
    if models:
        sentences.append(_definition(definition, _confidence(scores)))
        chance = chance_levels(scores, definition)
        sentences += [_score(("", ""), name, score, chance) for name, score in models.items()]
        sentences += [_difference(d) for d in scores.get("differences") or [] if d.get("what") == "headline"]
        control_definitions = (run.recipe.get("evaluate") or {}).get("controls") or {}
        sentences += [
            _score(("Control ", "对照 "), name, score, chance_levels(scores, control_definitions.get(name)))
            for name, score in controls.items()
        ]
    else:
        sentences.append(
            (
                "This run fixes no headline; the tables below stand for themselves.",
                "本次运行未设定主要结果，请见下列各表。",
            )
        )
    sentences += _changes(run)
    sentences += _at_chance(scores.get("table") or [])
    if run.recipe.get("world"):
        sentences.append(
            (
                "The data is the built-in made-up world: the numbers are about the method and say nothing about real Chinese.",
                "数据来自内置的虚构世界：这些数值只关乎方法，不能说明模型对真实中文的掌握。",
            )
        )
    return sentences


def _confidence(scores: Json) -> str:
    return f"{100 * scores.get('confidence', 0.95):g}%"


def _definition(d: Mapping[str, Any], confidence: str) -> Sentence:
    tasks = ", ".join(d.get("tasks") or ()) or "?"
    prompts = d.get("prompts") or "all"
    group = d.get("group")
    generated = d.get("method") == "generation"
    en_prompts = "over all prompts" if prompts == "all" else "prompt " + ", ".join(prompts)
    zh_prompts = "全部提示" if prompts == "all" else "提示 " + "、".join(prompts)
    return (
        f"The headline, as the recipe defines it, is accuracy on {tasks}"
        + (f" (group {group})" if group else "")
        + f", {en_prompts}, {'from generated answers' if generated else 'by likelihood'}; "
        f"intervals are {confidence}.",
        f"配方所定义的主要结果为 {tasks.replace(', ', '、')}"
        + (f"（分组 {group}）" if group else "")
        + f"上的准确率，{zh_prompts}，{'按生成的回答' if generated else '按似然'}计；区间为 {confidence}。",
    )


def _score(prefix: Sentence, name: str, score: Mapping[str, Any], chance: Sequence[float]) -> Sentence:
    low, high = score["low"], score["high"]
    where = ("", "")
    if low is None or high is None:
        value = percent(score["accuracy"])
        return (
            f"{prefix[0]}{name}: {value} (n = {score['n']:,}; too few clusters for an interval).",
            f"{prefix[1]}{name}：{value}（n = {score['n']:,}；簇太少，没有区间）。",
        )
    if chance:
        levels = percent(chance[0]) if len(chance) == 1 else f"{percent(chance[0])}–{percent(chance[-1])}"
        if low > chance[-1]:
            where = (f", above chance ({levels})", f"，高于随机水平（{levels}）")
        elif high < chance[0]:
            where = (f", below chance ({levels})", f"，低于随机水平（{levels}）")
        else:
            where = (f", not told apart from chance ({levels})", f"，与随机水平（{levels}）不可区分")
    value = percent(score["accuracy"])
    return (
        f"{prefix[0]}{name}: {value} ({percent(low)} to {percent(high)}; n = {score['n']:,}, {score['clusters']:,} clusters){where[0]}.",
        f"{prefix[1]}{name}：{value}（{percent(low)} 至 {percent(high)}；n = {score['n']:,}，{score['clusters']:,} 簇）{where[1]}。",
    )


def _difference(d: Mapping[str, Any]) -> Sentence:
    a, b, low, high = d["a"], d["b"], d["low"], d["high"]
    points = signed(d["difference"])
    if low is None or high is None:
        return (
            f"{b} against {a}: {points} points, too few clusters for an interval.",
            f"{b} 与 {a} 之差：{points} 个百分点，簇太少，没有区间。",
        )
    p = d.get("p")
    tail = f"{signed(low)} to {signed(high)}" + (f", p {_relation(p)}" if p is not None else "")
    zh_tail = f"{signed(low)} 至 {signed(high)}" + (f"，p {_relation(p)}" if p is not None else "")
    if low > 0:
        return f"{b} is higher than {a}: {points} points ({tail}).", f"{b} 高于 {a}：{points} 个百分点（{zh_tail}）。"
    if high < 0:
        return f"{b} is lower than {a}: {points} points ({tail}).", f"{b} 低于 {a}：{points} 个百分点（{zh_tail}）。"
    return (
        f"No difference between {a} and {b} is established: {points} points ({tail}).",
        f"不能确认 {a} 与 {b} 之间存在差异：{points} 个百分点（{zh_tail}）。",
    )


def _relation(p: float) -> str:
    shown = p_value(p)
    return shown if shown.startswith("<") else f"= {shown}"


def _changes(run: Run) -> list[Sentence]:
    """Bits per byte, first model to last."""
    sentences = []
    for c in run.scores.get("bits_per_byte_changes") or []:
        if not run.models or (c["a"], c["b"]) != (run.models[0], run.models[-1]):
            continue
        if c["low"] is None or c["high"] is None:  # a single document
            continue
        numbers = f"{signed(c['change'], '%')} ({signed(c['low'], '%')} to {signed(c['high'], '%')})"
        zh = f"{signed(c['change'], '%')}（{signed(c['low'], '%')} 至 {signed(c['high'], '%')}）"
        verdict = (
            ("worse: forgetting", "变差，即有遗忘")
            if c["low"] > 0
            else ("better", "变好")
            if c["high"] < 0
            else ("no change established", "不能确认有变化")
        )
        sentences.append(
            (
                f"Bits per byte on held-out {language_name(c['language'], 'en')} text from {c['a']} to {c['b']}: {numbers}, {verdict[0]}.",
                f"从 {c['a']} 到 {c['b']}，留出的 {language_name(c['language'], 'zh')} 文本的每字节比特数：{zh}，{verdict[1]}。",
            )
        )
    return sentences


def _at_chance(table: Sequence[Mapping[str, Any]]) -> list[Sentence]:
    """Tasks on which no model, prompt or method leaves chance."""
    tasks = dict.fromkeys(str(row["task"]) for row in table)
    idle = [t for t in tasks if all(interval_includes_chance(row) for row in table if row["task"] == t)]
    if not idle:
        return []
    return [
        (
            f"On {', '.join(idle)} every interval includes chance: these scores give no evidence of ability in any model.",
            f"在 {'、'.join(idle)} 上，所有区间都包含随机水平：这些得分不能说明任何模型具备能力。",
        )
    ]
