"""Every fixed sentence of the comparison page, in English and Chinese."""

from collections.abc import Mapping
from typing import Any

from pandallm.report.text import LANGUAGES

TEXT: dict[str, tuple[str, str]] = {
    "comparison": ("Comparison of models", "模型比较"),
    "title": ("{n} models on the same questions", "{n} 个模型，同样的题目"),
    "title_published": ("{n} model beside the 2023 paper", "{n} 个模型与 2023 年论文对照"),
    "summary": ("Verdicts", "结论"),
    "summary_of": (
        "Models: {models}. Tasks and ways of asking: {cells}. Comparisons of two models: {family}. Differences established: {settled}.",
        "模型 {models} 个；任务与提问方式 {cells} 组；两两比较 {family} 次；确认差异 {settled} 个。",
    ),
    "is_better": ("{b} is better than {a}", "{b} 优于 {a}"),
    "is_worse": ("{b} is worse than {a}", "{b} 不及 {a}"),
    "is_equivalent": (
        "{a} and {b} are equivalent within ±{margin} points",
        "{a} 与 {b} 在 ±{margin} 个百分点内等效",
    ),
    "is_undecided": (
        "{a} and {b}: no difference found (smallest difference this could find: {detectable} points)",
        "{a} 与 {b}：未发现差异（本比较可发现的最小差异：{detectable} 个百分点）",
    ),
    "is_undecided_one": (
        "{a} and {b}: no difference found (one passage says nothing of the spread)",
        "{a} 与 {b}：未发现差异（仅一篇材料，无法估计离散程度）",
    ),
    "against": ("against {a}", "对比 {a}"),
    "better": ("better", "更好"),
    "worse": ("worse", "更差"),
    "equivalent": ("equivalent within ±{margin} points", "在 ±{margin} 个百分点内等效"),
    "within": ("and within ±{margin} points", "且在 ±{margin} 个百分点内"),
    "undecided": (
        "no difference found (smallest difference this could find: {detectable} points)",
        "未发现差异（本比较可发现的最小差异：{detectable} 个百分点）",
    ),
    "undecided_one": (
        "no difference found (one passage says nothing of the spread)",
        "未发现差异（仅一篇材料，无法估计离散程度）",
    ),
    "scores": ("Scores", "得分"),
    "scores_note": (
        "Dots: accuracy, the mean over prompts of each question. Lines: {confidence} intervals, questions of one passage counted as one "
        "cluster. Dashed: guessing. Dotted: the best constant answer. Overlapping intervals do not mean that models are alike: "
        "the differences below are measured on the same questions and are sharper.",
        "圆点：准确率（每题先在各提示上取平均）。横线：{confidence} 区间，同一材料的题目视为一簇。虚线：随机水平；点线：最佳常数答案。"
        "区间重叠不代表模型相同：下方差异在相同题目上计算，更为灵敏。",
    ),
    "cell_facts": (
        "{n} questions in {clusters} passages; guessing {chance}; always answering {letter}: {constant}",
        "{n} 题，{clusters} 篇材料；随机 {chance}；总选 {letter}：{constant}",
    ),
    "not_above_chance": ("not above guessing", "不高于随机"),
    "not_above_constant": ("not above the constant answer", "不高于常数答案"),
    "prompts_of": ("prompts: {prompts}", "提示：{prompts}"),
    "tied": ("Groups of models that are tied, best first", "并列分组（由优到劣）"),
    "tied_note": ("Within a group no difference was established.", "同组内未确认任何差异。"),
    "by_prompt": ("By prompt", "按提示"),
    "by_prompt_note": (
        "One prompt each; p values here are not adjusted. McNemar's test takes questions for independent, the other one does not.",
        "每行一个提示；此处 p 值未校正。McNemar 检验假定题目相互独立，另一检验则不作此假定。",
    ),
    "differences": ("Differences", "差异"),
    "differences_note": (
        "b − a in percentage points on the same questions, with {confidence} intervals; the band is ±{margin} points. Right of 0: b is better. "
        "p from flipping the signs of whole passages; adjusted by Holm over the {family} comparisons of this page.",
        "b − a（百分点），在相同题目上计算，附 {confidence} 区间；色带为 ±{margin} 个百分点。0 右侧：b 更好。"
        "p 值由整篇材料的符号翻转检验得到，并对本页 {family} 个比较作 Holm 校正。",
    ),
    "published": ("Beside the 2023 paper", "与 2023 年论文对照"),
    "published_note": (
        "The paper published counts only, so these differences (ours − published) are unpaired and less sharp. Their variance is inflated by the "
        "design effect that the passages have on our own rows. p values are not adjusted. The paper generated answers greedily, zero shot, with the prompt “paper”.",
        "论文只公布了答对数，故此处差异（我们 − 论文）为非配对差异，灵敏度较低；方差已按我们逐题结果测得的设计效应放大。p 值未校正。"
        "论文采用零样本贪心生成与 “paper” 提示。",
    ),
    "published_setting": (
        "ours: prompt {prompt}, {method}; {n} questions",
        "我们的设置：提示 {prompt}，{method}；{n} 题",
    ),
    "why_task": ("not shown: the paper has no score of this task.", "未显示：论文没有该任务的得分。"),
    "why_n": (
        "not shown: {n} questions were scored, the paper's test set has {published_n}.",
        "未显示：本次评测 {n} 题，论文测试集为 {published_n} 题。",
    ),
    "why_split": (
        "not shown: these questions are not known to be the whole test set.",
        "未显示：无法确认这些题目就是完整测试集。",
    ),
    "design_effect": ("design effect", "设计效应"),
    "questions": ("Where models disagree", "回答不一致的题目"),
    "questions_note": (
        "{total} of {scored} questions got different choices under the same prompt. Letters are the options in the published order; "
        "✓ right, ✗ wrong, ∅ no answer found in what the model wrote.",
        "{scored} 题中有 {total} 题在同一提示下得到不同选择。字母为公布顺序下的选项；✓ 正确，✗ 错误，∅ 生成内容中未找到答案。",
    ),
    "questions_capped": ("{shown} of them are held here, evenly spaced.", "此处等距保留其中 {shown} 题。"),
    "no_text": (
        "Made with --no-text: ids, choices and scores only.",
        "以 --no-text 生成：只含编号、选择与得分。",
    ),
    "questions_print": ("Print shows the questions that are listed on the screen.", "打印内容为屏幕上已列出的题目。"),
    "need_js": (
        "The questions and the language switch need JavaScript; everything else is readable without.",
        "题目检索与语言切换需要 JavaScript；其余内容无需即可阅读。",
    ),
    "method": ("How to read this", "如何阅读"),
    "means_better": (
        "better, worse: Holm's adjusted p is below {alpha} and the interval of the difference leaves out 0.",
        "更好、更差：Holm 校正后的 p 小于 {alpha}，且差异区间不含 0。",
    ),
    "means_equivalent": (
        "equivalent: two one-sided tests, adjusted by Holm likewise, say that the difference is smaller than {margin} points.",
        "等效：两个单侧检验（同样经 Holm 校正）表明差异小于 {margin} 个百分点。",
    ),
    "means_undecided": (
        "no difference found: neither; a true difference of the size told would have been found with a probability of {power}, "
        "a smaller one may exist. This is computed from the spread of the answers and before Holm's correction.",
        "未发现差异：两者皆否；若真实差异达到所示大小，将有 {power} 的概率被发现，更小的差异仍可能存在。该值由回答的离散程度算得，未计 Holm 校正。",
    ),
    "left_out": ("Left out, because not all models have it", "因并非所有模型都有而略去"),
    "sources": ("Made from", "数据来源"),
    "task": ("Task", "任务"),
    "group": ("group", "分组"),
    "prompt": ("Prompt", "提示"),
    "likelihood": ("likelihood", "似然"),
    "generation": ("generated", "生成"),
    "shots": ("{n} shots", "{n} 样本"),
    "chat": ("chat template", "对话模板"),
    "model": ("Model", "模型"),
    "accuracy": ("Accuracy", "准确率"),
    "interval": ("Interval", "区间"),
    "unparsed": ("No answer found", "未找到答案"),
    "near_ties": ("Near ties", "近似并列"),
    "pair": ("b against a", "b 对 a"),
    "difference": ("b − a", "b − a"),
    "ours_minus": ("ours − published", "我们 − 论文"),
    "p": ("p", "p"),
    "p_holm": ("p, Holm", "p（Holm）"),
    "p_mcnemar": ("p, McNemar", "p（McNemar）"),
    "only_a": ("only a right", "仅 a 对"),
    "only_b": ("only b right", "仅 b 对"),
    "disagree": ("Choices differ", "选择不同"),
    "verdict": ("Verdict on b", "对 b 的结论"),
    "right": ("right", "答对"),
    "footer": (
        "Made by panda compare of pandallm {version}. This page is one file and loads nothing from the network; "
        "panda verify rebuilds its numbers from the rows.",
        "由 pandallm {version} 的 panda compare 生成。本页为单一文件，不从网络加载任何内容；panda verify 可由逐题结果重算其数值。",
    ),
    # What the script writes.
    "found": ("{n} questions in {g} passages", "{n} 题，{g} 篇材料"),
    "more": ("Show more", "显示更多"),
    "passage": ("Passage", "材料"),
    "completion": ("What the models wrote", "模型生成的内容"),
    "option_scores": ("Score of each option", "各选项得分"),
    "all_tasks": ("All tasks", "全部任务"),
    "all_prompts": ("All prompts", "全部提示"),
    "search": ("Search text or id", "检索文本或编号"),
    "any": ("{m}: right or wrong", "{m}：对错不限"),
    "is_right": ("{m}: right", "{m}：正确"),
    "is_wrong": ("{m}: wrong", "{m}：错误"),
}

SCRIPT_KEYS = (
    "found",
    "more",
    "passage",
    "completion",
    "option_scores",
    "all_tasks",
    "all_prompts",
    "search",
    "any",
    "is_right",
    "is_wrong",
    "likelihood",
    "generation",
    "prompt",
    "shots",
    "chat",
)


def text(key: str, language: str, /, **values: Any) -> str:
    """One fixed text in one language, with values filled in (plain text, not yet escaped)."""
    return TEXT[key][LANGUAGES.index(language)].format(**values)


def script_texts() -> Mapping[str, Mapping[str, str]]:
    """The texts that the page's script writes, with their {holes} left open."""
    return {key: dict(zip(LANGUAGES, TEXT[key])) for key in SCRIPT_KEYS}
