"""Every fixed sentence of the page that sets runs side by side, in English and Chinese; shared words are the other pages'."""

from typing import Any

from pandallm.report import compare_text
from pandallm.report import text as report_text
from pandallm.report.text import LANGUAGES

TEXT: dict[str, tuple[str, str]] = {
    "runs": ("Runs side by side", "运行对照"),
    "title": ("{n} runs side by side", "{n} 次运行对照"),
    "run": ("Run", "运行"),
    "first_is": (
        "Every other run is set against the first, {a}. Of each run the last model counts.",
        "其余各次运行均与第一次运行 {a} 对照；每次运行以其最后一个模型为准。",
    ),
    "headline_note": (
        "Accuracy as each run's own recipe defines its headline, on all its questions. Lines: {confidence} intervals, questions of one "
        "passage counted as one cluster. Dashed: guessing. Dotted: the best constant answer.",
        "按各自配方对主要结果的定义，在其全部题目上计算的准确率。横线：{confidence} 区间，同一材料的题目视为一簇。虚线：随机水平；点线：最佳常数答案。",
    ),
    "own_confidence": (
        "The runs were scored with intervals of different width: {levels}. Comparisons use 95%.",
        "各次运行所用的区间宽度不同：{levels}。比较时采用 95%。",
    ),
    "same_headline": ("The headline of all runs:", "各次运行的主要结果均为："),
    "other_headlines": (
        "The headlines are not the same, so these scores do not measure the same thing:",
        "各次运行的主要结果定义不同，因此下列得分衡量的不是同一件事：",
    ),
    "headline_what": (
        "{method} on {tasks}, prompts {prompts}, group {group}",
        "{tasks}，{method}，提示 {prompts}，分组 {group}",
    ),
    "all_of_them": ("all", "全部"),
    "no_headline": ("no headline", "无主要结果"),
    "headline_differences": ("Headlines compared", "主要结果之差"),
    "headline_differences_note": (
        "b − a in percentage points on the {n} questions in {clusters} passages that all runs were asked, mean over prompts, with {confidence} intervals; "
        "the band is ±{margin} points. p from flipping the signs of whole passages, adjusted by Holm over these {family} comparisons.",
        "b − a（百分点），在各次运行共有的 {n} 题（{clusters} 篇材料）上先按提示取平均，附 {confidence} 区间；色带为 ±{margin} 个百分点。"
        "p 值由整篇材料的符号翻转检验得到，并对这 {family} 个比较作 Holm 校正。",
    ),
    "not_compared": (
        "{b} is not compared question by question: {why}",
        "{b} 未参与逐题比较：{why}",
    ),
    "headline_not_compared": ("The headlines are not compared:", "未比较主要结果："),
    "headline_not_shared": (
        "the questions of the headline were not asked of all runs alike; what was is compared below.",
        "并非所有运行都以相同方式回答了主要结果的题目；共有部分的比较见下。",
    ),
    "headline_not_same": (
        "their headlines differ; the tasks that they share are compared below.",
        "其主要结果定义不同；共有任务的比较见下。",
    ),
    "method_of": ("Method", "方法"),
    "scores_note": (
        "Accuracy of each run's last model with its interval, on the questions that this run was asked. “≈ chance” marks an interval that includes guessing.",
        "各次运行最后一个模型的准确率及区间，以该次运行所答题目计。“≈ 随机”表示区间包含随机水平。",
    ),
    "differences_note": (
        "b − a in percentage points on the questions that all runs were asked, mean over prompts, with {confidence} intervals; the band is ±{margin} points. "
        "Right of 0: b is better. p from flipping the signs of whole passages; adjusted by Holm over the {family} comparisons of this table.",
        "b − a（百分点），在各次运行共有的题目上先按提示取平均，附 {confidence} 区间；色带为 ±{margin} 个百分点。0 右侧：b 更好。"
        "p 值由整篇材料的符号翻转检验得到，并对本表 {family} 个比较作 Holm 校正。",
    ),
    "question_pages": (
        "The questions themselves are on each run's own page; panda compare makes a page of those on which the models disagree.",
        "题目本身见各次运行自己的页面；panda compare 可生成回答不一致题目的页面。",
    ),
    "own_page": ("own page", "单独页面"),
    "compare_page": ("The questions on which these runs disagree", "这些运行回答不一致的题目"),
    "bits_note": (
        "On held-out text of each run, with {confidence} intervals; lower is better, also across tokenizers. Change: against {a}, on the documents that both "
        "scored. These intervals are not adjusted for their number.",
        "在各次运行的留出文本上测得，附 {confidence} 区间；越低越好，不同分词器之间也可比较。变化：相对 {a}，只计两者都测过的文档。区间未按其个数校正。",
    ),
    "bits_caption": (
        "Change of bits per byte against {a}, by language, with {confidence} intervals. Left of 0: better.",
        "各语言每字节比特数相对 {a} 的变化及 {confidence} 区间。0 左侧：变好。",
    ),
    "no_shared_text": ("no document in common", "无共同文档"),
    "on_documents": ("on {n} documents", "{n} 篇文档"),
    "curves_note": (
        "As logged, no smoothing; a colour per run. A stage that came from the store has the lines of the run that made it.",
        "原样记录，未作平滑；每次运行一种颜色。取自存储的阶段，其记录来自最初生成它的运行。",
    ),
    "loss_tokens": (
        "Stage {stage}: training loss over trained tokens{thin}.",
        "阶段 {stage}：训练损失随受训词元的变化{thin}。",
    ),
    "loss_steps": ("Stage {stage}: training loss over steps{thin}.", "阶段 {stage}：训练损失随步数的变化{thin}。"),
    "held_out_tokens": (
        "Stage {stage}: bits per byte of held-out text over trained tokens{thin}.",
        "阶段 {stage}：留出文本的每字节比特数随受训词元的变化{thin}。",
    ),
    "held_out_steps": (
        "Stage {stage}: bits per byte of held-out text over steps{thin}.",
        "阶段 {stage}：留出文本的每字节比特数随步数的变化{thin}。",
    ),
    "thin": (", up to one in {every} drawn", "（最多每 {every} 步画一点）"),
    "curves_first": ("The first {n} runs are drawn.", "仅绘出前 {n} 次运行。"),
    "recipes": ("What differs between the recipes", "配方差异"),
    "recipes_note": (
        "As panda diff tells it. Paths, devices and workers are not part of a recipe's results and are not kept in a run.",
        "与 panda diff 一致。路径、设备与进程数不影响结果，不随运行保存。",
    ),
    "recipe_against": ("{b} against {a}", "{b} 对 {a}"),
    "recipe_unknown": ("The recipes cannot be set side by side: {why}", "无法比较配方：{why}"),
    "no_setting": ("No setting that changes a result differs.", "没有影响结果的设置差异。"),
    "setting": ("Setting", "设置"),
    "no_result": ("changes no result", "不影响结果"),
    "absent": ("absent", "无"),
    "stages_shared": ("the same in both: {names}", "两者相同：{names}"),
    "stages_changed": ("made anew: {names}", "重新生成：{names}"),
    "stages_new": ("only in {b}: {names}", "仅 {b} 有：{names}"),
    "stages_gone": ("only in {a}: {names}", "仅 {a} 有：{names}"),
    "training": ("Data and training", "数据与训练"),
    "training_note": (
        "Tokens of each stage: unique, read by training (repeats counted) and trained (the rest is context only); seconds are those that the stage took where it was made.",
        "各阶段的词元：不重复、训练读取（含重复）与受训（其余仅作上下文）；秒数为该阶段最初生成时的用时。",
    ),
    "read_tokens": ("Tokens read", "读取词元"),
    "trained_tokens": ("Trained", "受训"),
    "final_loss": ("Last loss", "末步损失"),
    "machines": ("Runs, machines, versions", "运行、硬件与版本"),
    "machines_note": (
        "“differs” marks lines in which the runs are not alike. Seconds of work are those of all stages, also where a stage came from the store.",
        "“不同”标出各次运行不一致的行。工作秒数为全部阶段之和，含取自存储的阶段。",
    ),
    "differs": ("differs", "不同"),
    "work_seconds": ("seconds of work", "工作秒数"),
    "sources": ("Made from", "数据来源"),
    "footer": (
        "Made by panda report of pandallm {version}. This page is one file and loads nothing from the network; "
        "panda verify rebuilds its numbers from the run folders.",
        "由 pandallm {version} 的 panda report 生成。本页为单一文件，不从网络加载任何内容；panda verify 可由各运行文件夹重算其数值。",
    ),
}


def text(key: str, language: str, /, **values: Any) -> str:
    """One fixed text in one language, with values filled in (plain text, not yet escaped)."""
    table = next(t for t in (TEXT, compare_text.TEXT, report_text.TEXT) if key in t)
    return table[key][LANGUAGES.index(language)].format(**values)
