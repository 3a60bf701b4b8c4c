"""Every fixed sentence of the blueprint, in English and Chinese."""

from typing import Any

from pandallm.report.text import LANGUAGES

TEXT: dict[str, tuple[str, str]] = {
    "title": ("Blueprint: what the studies say", "蓝图：各项研究说明什么"),
    "made": (
        "This page is written by `panda study blueprint` from the results of studies; do not edit it. [中文](blueprint.zh-CN.md)",
        "本页由 `panda study blueprint` 根据研究结果生成，请勿手工修改。[English](blueprint.md)",
    ),
    "intro": (
        "What should a builder do about quantity, quality, language and staging? Each line below is one comparison that was written down before it ran: "
        "what to do, whether the claim held, the effect with its interval, and a link to the results. "
        "[How a verdict is made](studies.md#what-a-verdict-means).",
        "在数量、质量、语言与阶段安排上，该怎么做？下面每一行是一项事先写好的比较：该怎么做、论断是否成立、效应及其区间，以及结果的链接。"
        "[结论如何得出](studies.md#what-a-verdict-means)。",
    ),
    "counts": (
        "Studies run: {run}, with {claims} claims: {reproduced} reproduced, {refuted} refuted, {inconclusive} inconclusive. "
        "Written and not run: {unrun}.",
        "已运行 {run} 项研究，含 {claims} 个论断：{reproduced} 个复现，{refuted} 个否定，{inconclusive} 个无定论。另有 {unrun} 项已写好而未运行。",
    ),
    "none_run": (
        "No study has published results yet, so this page gives no advice. Written and not run: {unrun}.",
        "尚无研究公布结果，因此本页不给出任何建议。已写好而未运行的有 {unrun} 项。",
    ),
    "world": (
        "Of the studies that were run, {n} used the built-in made-up world and its small model: they show what a choice does there. Nothing says "
        "that it does the same in a larger model on real Chinese.",
        "已运行的研究中有 {n} 项使用内置的虚构世界和其中的小模型：它们说明某个选择在那里的作用，并不说明在更大的模型和真实中文上也如此。",
    ),
    "subject": ("subject", "主题"),
    "run": ("studies run", "已运行"),
    "unrun": ("not run", "未运行"),
    "reproduced_head": ("claims reproduced", "论断复现"),
    "refuted_head": ("refuted", "否定"),
    "inconclusive_head": ("inconclusive", "无定论"),
    "quantity": ("Quantity", "数量"),
    "quality": ("Quality", "质量"),
    "language": ("Language", "语言"),
    "staging": ("Staging", "阶段安排"),
    "vocabulary": ("Vocabulary", "词表"),
    "training": ("Training", "训练方式"),
    "nothing_run": (
        "Nothing was run on this subject, so nothing can be said.",
        "本主题尚未运行任何研究，因此无可奉告。",
    ),
    "nothing_found": (
        "Nothing was found: all claims on this subject are inconclusive.",
        "没有发现：本主题的所有论断均无定论。",
    ),
    "not_run": ("Not run: [{name}]({file}). {description}", "未运行：[{name}]({file})。{description}"),
    "facts": (
        "{where}; seeds {seeds}; {done} of {total} runs complete{failed}; {machines}. {links}",
        "{where}；种子 {seeds}；{total} 次运行中完成 {done} 次{failed}；{machines}。{links}",
    ),
    "failed": (", {n} failed", "，失败 {n} 次"),
    "in_world": ("The built-in world", "内置世界"),
    "in_text": ("Recipe `{recipe}`", "配方 `{recipe}`"),
    "results": ("[Results]({link})", "[结果]({link})"),
    "file": (", [study file]({file})", "，[研究文件]({file})"),
    "means": ("Means over seeds, {metric}:", "各种子的均值，{metric}："),
    # What to do: {metric}, {better}, {worse}, {a}, {b}.
    "choose": ("For {metric}, choose {better} over {worse}.", "就{metric}而言，选 {better}，不选 {worse}。"),
    "either": (
        "For {metric}, {a} and {b} will both do: they surely differ by less than {margin}.",
        "就{metric}而言，{a} 与 {b} 均可：二者之差可确信小于 {margin}。",
    ),
    "no_gain": (
        "For {metric}, expect no gain that matters from {b} over {a}.",
        "就{metric}而言，不要指望 {b} 比 {a} 有要紧的提升。",
    ),
    "no_loss": (
        "For {metric}, {b} costs nothing that matters against {a}.",
        "就{metric}而言，{b} 相比 {a} 没有要紧的损失。",
    ),
    "leaning": (
        "For {metric}, {better} is better than {worse}; whether by more than {margin} is open.",
        "就{metric}而言，{better} 优于 {worse}；是否超过 {margin} 尚不能断定。",
    ),
    "undecided": (
        "For {metric}, nothing can be said of {b} against {a}.",
        "就{metric}而言，{b} 与 {a} 孰优孰劣尚不能断定。",
    ),
    "no_data": (
        "For {metric}, {b} against {a} was not measured: no seed has both.",
        "就{metric}而言，{b} 与 {a} 的比较未测得：没有种子同时具备两者。",
    ),
    "claimed": ("Claim “{claim}”: {verdict}.", "论断“{claim}”：{verdict}。"),
    "claimed_none": ("The comparison is {verdict}.", "该比较：{verdict}。"),
    "numbers": (
        "{b} against {a}: {effect} ({confidence} interval {low} to {high}, p {p} after Holm, {seeds} of {all} seeds)",
        "{b} 相对 {a}：{effect}（{confidence} 区间 {low} 至 {high}，Holm 校正后 p {p}，{all} 个种子中的 {seeds} 个）",
    ),
    "finds": (
        "; an effect of {detectable} would have been found with a probability of 80 %",
        "；若效应为 {detectable}，则有 80 % 的概率会被发现",
    ),
    "stop": (".", "。"),
    "points": ("{value} points", "{value} 个百分点"),
    "accuracy": ("accuracy on {tasks}", "准确率（{tasks}）"),
    "prompts": (" (prompts {prompts})", "（提示 {prompts}）"),
    "group": (", group {group}", "，分组 {group}"),
    "bits": ("bits per byte of held-out {what} (fewer is better)", "留出的{what}的每字节比特数（越少越好）"),
    "text": ("text", "文本"),
    "zh_text": ("Chinese", "中文"),
    "en_text": ("English", "英文"),
    "lang_text": ("`{language}` text", "`{language}` 文本"),
    "of_corpus": (" of corpus `{corpus}`", "（语料 `{corpus}`）"),
    "of_source": (" from `{source}`", "（来源 `{source}`）"),
    "after": (" after stage `{model}`", "（阶段 `{model}` 之后）"),
    "reproduced": ("reproduced", "复现"),
    "refuted": ("refuted", "否定"),
    "inconclusive": ("inconclusive", "无定论"),
    "and": (", ", "、"),
}


def words(key: str, language: str, /, **values: Any) -> str:
    """A fixed text in one language, its {holes} filled."""
    found = TEXT[key][LANGUAGES.index(language)]
    return found.format(**values) if values else found
