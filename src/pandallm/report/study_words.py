"""Every fixed sentence of a study's page, in English and Chinese."""

from typing import Any

from pandallm.report.text import LANGUAGES

TEXT: dict[str, tuple[str, str]] = {
    "study": ("Study report", "研究报告"),
    "of": (
        "Recipe {recipe}; {arms} arms, seeds {seeds}",
        "配方 {recipe}；{arms} 组，随机种子 {seeds}",
    ),
    "progress": ("{done} of {total} runs are complete.", "共 {total} 次运行，已完成 {done} 次。"),
    "unfinished": (
        "The study is not finished: numbers may still change, and claims are judged on the seeds that are there.",
        "研究尚未完成：数值仍可能变化，结论仅依据已有的种子。",
    ),
    "failed": ("Runs that failed", "失败的运行"),
    "world": (
        "The data is the built-in made-up world: the numbers are about the method and say nothing about real Chinese.",
        "数据来自内置的虚构世界：这些数值只关乎方法，不能说明模型对真实中文的掌握。",
    ),
    "claims": ("Claims", "论断"),
    "claims_note": (
        "Effects are {b} against {a}: accuracies in points, bits per byte in per cent (lower is better). Intervals are {confidence}, over seeds and "
        "questions; p is corrected by Holm over the claims. A claim is refuted where the effect is surely too small to matter on the expected side (short of the "
        "margin), reproduced where it has the expected sign and p is below {alpha}, else inconclusive.",
        "效应为 {b} 相对 {a}：准确率以百分点计，每字节比特数以百分比计（越低越好）。区间为 {confidence}，涵盖种子与题目；p 值已按 Holm 法对全部论断校正。"
        "可确信效应在预期方向上小到无关紧要（不及界限）为“否定”；符号与预期一致且 p 小于 {alpha} 为“复现”；其余为“无定论”。",
    ),
    "reproduced": ("reproduced", "复现"),
    "refuted": ("refuted", "否定"),
    "inconclusive": ("inconclusive", "无定论"),
    "no_seed": ("no seed has both yet", "尚无种子同时具备两组"),
    "claim": ("claim", "论断"),
    "verdict": ("verdict", "结论"),
    "metric": ("metric", "指标"),
    "expected": ("expected", "预期"),
    "better": ("better", "更好"),
    "worse": ("worse", "更差"),
    "different": ("different", "有差异"),
    "same": ("the same", "相同"),
    "effect": ("effect", "效应"),
    "interval": ("interval", "区间"),
    "p_holm": ("p (Holm)", "p（Holm）"),
    "seeds": ("seeds", "种子"),
    "finds": ("finds", "可发现"),
    "against": ("{b} against {a}", "{b} 对比 {a}"),
    "forest_accuracy": (
        "Effects on accuracy: dot and {confidence} interval, a ring for every seed. Right of 0: the first-named side is better.",
        "对准确率的效应：点与 {confidence} 区间，每个种子一个小圈。0 右侧表示先列的一方更好。",
    ),
    "forest_bits": (
        "Effects on bits per byte: dot and {confidence} interval, a ring for every seed. Left of 0: the first-named side is better.",
        "对每字节比特数的效应：点与 {confidence} 区间，每个种子一个小圈。0 左侧表示先列的一方更好。",
    ),
    "prompts": ("Prompt by prompt", "逐个提示"),
    "prompts_note": (
        "The same questions asked in other words: a metric is the mean of its prompts. The last column is how far the best prompt is from the worst.",
        "同样的题目，不同的问法：指标是各提示的均值。末列为最好与最差提示之差。",
    ),
    "prompts_caption": (
        "{metric} by prompt: means over seeds with {confidence} intervals.",
        "{metric}，按提示：各种子的均值与 {confidence} 区间。",
    ),
    "spread": ("spread", "差距"),
    "doses": ("Dose and response", "剂量与反应"),
    "doses_note": (
        "Each metric at every level: a ring and a thin line for every seed, the mean with its {confidence} interval over seeds. The seeds' lines tell more "
        "than the intervals: arms of one seed share what they do not change.",
        "各水平上的指标：每个种子一个小圈和一条细线，均值附 {confidence} 区间（跨种子）。细线比区间更能说明问题：同一种子的各组共享未改动的部分。",
    ),
    "dose_caption": ("{metric} over {factor}.", "{metric} 随 {factor} 的变化。"),
    "power": ("How many seeds?", "需要多少种子？"),
    "power_note": (
        "The smallest difference of {metric} that a number of seeds finds with a probability of {power}, from the spread of the seeds so far, without "
        "correction for several claims. From two or three seeds that spread is a rough guess.",
        "若干种子能以 {power} 的概率发现的 {metric} 最小差异，依据已有种子之间的差异推算，未对多个论断作校正。仅凭两三个种子推算较为粗略。",
    ),
    "power_caption": (
        "Smallest difference found, by number of seeds; a dot where the study stands, dashed the margin.",
        "可发现的最小差异随种子数的变化；圆点为本研究现状，虚线为界限。",
    ),
    "comparison": ("comparison", "比较"),
    "with_seeds": ("with {n}", "{n} 个"),
    "seeds_so_far": ("seeds so far", "已有种子"),
    "enough": ("seeds for the margin of {margin}", "达到界限 {margin} 所需种子"),
    "more_than": ("more than {n}", "多于 {n}"),
    "axis_seeds": ("seeds", "种子数"),
    "axis_finds_points": ("found, points of accuracy", "可发现的准确率差（百分点）"),
    "axis_finds_percent": ("found, % of bits per byte", "可发现的每字节比特数变化（%）"),
    "arms": ("Arms", "各组"),
    "floors": ("chance · constant · unparsed", "随机 · 常数 · 未解析"),
    "arms_note": (
        "Mean over seeds with its {confidence} interval. Beside accuracies: chance, always giving the best one answer, and the share without an answer, in per cent.",
        "跨种子均值及其 {confidence} 区间。准确率旁依次为随机水平、始终给出同一最佳答案的准确率、无答案的占比（均为百分数）。",
    ),
    "arm": ("arm", "组"),
    "budget": ("What each arm read", "各组读了什么"),
    "budget_note": (
        "Of each arm's first finished run. Bytes are those of the records in the files, repeats counted; epochs are tokens read over unique tokens; FLOPs "
        "follow from the model's shape; the whole run's time holds its data stages and evaluation, as if nothing had been shared.",
        "取各组首个完成的运行。字节数按文件中的记录计算（含重复）；遍数为读取词元与不重复词元之比；FLOP 由模型结构推算；“整个运行”的用时含数据与评测阶段，按未共享计算。",
    ),
    "whole_run": ("whole run", "整个运行"),
    "stage": ("stage", "阶段"),
    "steps": ("steps", "步数"),
    "tokens": ("tokens", "词元"),
    "trained_tokens": ("trained", "受训"),
    "bytes": ("bytes", "字节"),
    "epochs": ("epochs", "遍数"),
    "flops": ("FLOPs", "FLOP"),
    "time": ("time", "用时"),
    "mixes": ("Token mix", "词元构成"),
    "mixes_table": ("As a table", "表格"),
    "mixes_note": (
        "What training read of each source, and what the recipe wants. Arms that read the same stand together.",
        "训练从各来源读取的量，以及配方的目标。读取相同内容的组并列。",
    ),
    "mix_caption": (
        "{stage}, {arms}: tokens read of each source; a tick where the recipe wants a share.",
        "{stage}，{arms}：从各来源读取的词元；刻度为配方的目标。",
    ),
    "share": ("share", "占比"),
    "wanted": ("wanted", "目标"),
    "data": ("Data", "数据"),
    "data_note": ("Records of each source and what became of them.", "各来源的记录及其去向。"),
    "records": ("records", "记录"),
    "kept": ("kept", "保留"),
    "held_out": ("held out", "留出"),
    "dropped": ("dropped", "丢弃"),
    "quarantined": ("quarantined", "隔离"),
    "contamination": ("Contamination", "污染检查"),
    "contamination_note": (
        "A question is touched where a document shares {ngram} characters in a row with it. To leave out: touched by a document that is kept.",
        "文档与题目有连续 {ngram} 个字符相同，即算触及。应排除：被保留的文档触及的题目。",
    ),
    "task": ("task", "任务"),
    "asked": ("questions", "题目"),
    "touched": ("touched", "触及"),
    "documents": ("documents", "文档"),
    "exclude": ("to leave out", "应排除"),
    "all_arms": ("all arms", "全部组"),
    "model": ("model", "模型"),
    "effects": ("Effects of every level", "各水平的效应"),
    "effects_note": (
        "Every level against its factor's baseline on every metric; p corrected by Holm within a metric. These were not claimed beforehand: read them as "
        "hints.",
        "每个水平与该因素基线在各指标上的比较；p 值在每个指标内按 Holm 法校正。这些比较并非事先提出，仅供参考。",
    ),
    "forgetting": ("Forgetting", "遗忘"),
    "forgetting_note": (
        "Bits per byte of held-out text after each stage, by language; the change is against the arm's first model. Red: surely worse; green: surely better.",
        "各阶段之后留出文本的每字节比特数，按语言列出；变化相对于该组的第一个模型。红色：确实变差；绿色：确实变好。",
    ),
    "frontier": (
        "What each arm pays: bits per byte of Chinese against English held-out text, last models; lower left is better. A ring for every seed.",
        "各组的取舍：最后模型在中文与英文留出文本上的每字节比特数，左下为佳；每个种子一个小圈。",
    ),
    "axis_bits_zh": ("bits per byte, Chinese", "每字节比特数（中文）"),
    "axis_bits_en": ("bits per byte, English", "每字节比特数（英文）"),
    "sources": ("Bits per byte by source", "各来源的每字节比特数"),
    "sources_note": ("Of each arm's last model, mean over seeds.", "各组最后一个模型，跨种子均值。"),
    "corpus": ("corpus", "语料"),
    "source": ("source", "来源"),
    "language": ("language", "语言"),
    "change": ("change", "变化"),
    "run_reports": ("reports of runs:", "各次运行的报告："),
    "one_seed": ("seed {n}", "种子 {n}"),
    "questions_note": (
        "What each arm's last model answered to every question of one seed. Letters are the options in the order stored; ✓ right, ✗ wrong, ∅ no answer "
        "found in what the model wrote.",
        "各组最后一个模型对同一种子下每道题的回答。字母按存储顺序对应选项；✓ 正确，✗ 错误，∅ 生成内容中未找到答案。",
    ),
    "seeds_left_out": (
        "Seeds {seeds} are left out to keep the page below 3 MB; their answers are in rows.jsonl of each run.",
        "为使页面小于 3 MB，未收入种子 {seeds}；其回答见各运行的 rows.jsonl。",
    ),
    "asked_otherwise": (
        "{n} questions that two arms ask in different words are left out.",
        "有 {n} 题在不同组中的内容不同，未收入。",
    ),
    "disagree": ("arms disagree", "各组回答不一致"),
    "paste": ("Tables to paste", "可粘贴的表格"),
    "notes": ("Notes", "说明"),
    "axis_points": ("points of accuracy", "准确率（百分点）"),
    "axis_percent": ("change of bits per byte, %", "每字节比特数的变化（%）"),
    "axis_accuracy": ("accuracy, %", "准确率（%）"),
    "axis_bits": ("bits per byte", "每字节比特数"),
    "made": ("Made by pandallm {version} from results.json.", "由 pandallm {version} 根据 results.json 生成。"),
}


def text(key: str, language: str, /, **values: Any) -> str:
    """A fixed text in one language, its {holes} filled."""
    return TEXT[key][LANGUAGES.index(language)].format(**values) if values else TEXT[key][LANGUAGES.index(language)]
