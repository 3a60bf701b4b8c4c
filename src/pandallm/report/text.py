"""Every fixed sentence of the report, in English and Chinese, and how numbers are written."""

from collections.abc import Mapping
from typing import Any

LANGUAGES = ("en", "zh")

TEXT: dict[str, tuple[str, str]] = {
    "report": ("Run report", "运行报告"),
    "switch": ("Language", "语言"),
    "contents": ("Contents", "目录"),
    "seed": ("seed", "随机种子"),
    "started": ("started", "开始于"),
    "duration": ("took", "用时"),
    "summary": ("Summary", "摘要"),
    "headline": ("Headline", "主要结果"),
    "headline_caption": (
        "Accuracy of each model (filled dots) and of the controls (hollow dots) with {confidence} intervals. "
        "The dashed line is chance.",
        "各模型（实心点）与对照（空心点）的准确率及 {confidence} 区间。虚线为随机水平。",
    ),
    "curves": ("Loss curves", "损失曲线"),
    "curves_note": (
        "Training loss per step, nats per trained token, as logged: no smoothing.",
        "每步训练损失（每个受训词元的奈特数），原样记录，未作平滑。",
    ),
    "curves_caption": ("Stage {stage}: loss over {steps} steps{thin}.", "阶段 {stage}：{steps} 步的损失{thin}。"),
    "curves_tokens_caption": (
        "Stage {stage}: loss over {tokens} trained tokens, {steps} steps{thin}.",
        "阶段 {stage}：{tokens} 个受训词元（{steps} 步）的损失{thin}。",
    ),
    "held_out_caption": (
        "Stage {stage}: bits per byte of held-out text while it trained; 0 is its start, ink the text that decides about stopping.",
        "阶段 {stage}：训练过程中留出文本的每字节比特数；0 处为起点，黑线为决定是否停止的文本。",
    ),
    "all_text": ("deciding text", "决定性文本"),
    "plan": ("Predicted and actual", "预测与实际"),
    "plan_note": (
        "What was predicted of each stage just before it trained, and what its steps then took. Actual memory is the largest size "
        "of the whole process, data stages before it included.",
        "各阶段训练开始前的预测，以及其训练步实际的用量。实际内存为整个进程的峰值，含此前的数据阶段。",
    ),
    "steps": ("Steps", "步数"),
    "tokens_predicted": ("Tokens predicted", "预测词元数"),
    "tokens_actual": ("actual", "实际"),
    "time_predicted": ("Time predicted", "预测用时"),
    "time_actual": ("actual", "实际"),
    "memory_predicted": ("Memory predicted", "预测内存"),
    "memory_actual": ("actual", "实际"),
    "data": ("Data", "数据"),
    "funnel": ("From records read to records kept", "从读入到保留的记录"),
    "funnel_caption": (
        "Corpus {corpus}: what became of each source's records.",
        "语料 {corpus}：各来源记录的去向。",
    ),
    "tokens": ("Token mix", "词元构成"),
    "mix_caption": (
        "Stage {stage}: tokens that training reads, per source, repeats counted. A black tick: what the recipe wants.",
        "阶段 {stage}：训练实际读取的各来源词元数（含重复）。黑色刻度：配方所要求的数量。",
    ),
    "token_ledger": ("Token ledger", "词元账目"),
    "ledger_note": (
        "Unique tokens = trained + masked + truncated + over budget. Exposures are what training reads; "
        "passes say how often.",
        "不重复词元 = 受训 + 掩蔽 + 截断 + 超出预算。曝光为训练实际读取量；遍数为重复次数。",
    ),
    "scores": ("Scores", "得分"),
    "scores_note": (
        "Each line: accuracy with its {confidence} interval; the tick in the small picture is chance. "
        "“Best constant” is the accuracy of always giving the most frequent answer. "
        "“≈ chance” marks an interval that includes chance: such a score is no evidence of ability.",
        "每行：准确率及其 {confidence} 区间；小图中的刻度为随机水平。“最佳常数”指总是选择最常见答案的准确率。"
        "“≈ 随机”表示区间包含随机水平：该得分不能说明具备能力。",
    ),
    "prompt_caption": (
        "{task}: accuracy by prompt and model. Dashed: chance. Dotted: best constant answer.",
        "{task}：各提示与各模型的准确率。虚线：随机水平；点线：最佳常数答案。",
    ),
    "differences": ("Differences", "模型差异"),
    "differences_note": (
        "Difference = b − a, in percentage points, on the same questions. A difference counts as established where its interval "
        "leaves out 0 and its p value, adjusted by Holm over the rows of its family (headline; tasks), is small enough.",
        "差异 = b − a（百分点），在相同题目上计算。区间不含 0 且经 Holm 校正（分主要结果与各任务两族）的 p 值足够小时，才算确认差异。",
    ),
    "differences_caption": ("Differences b − a with {confidence} intervals.", "差异 b − a 及 {confidence} 区间。"),
    "bpb": ("Bits per byte", "每字节比特数"),
    "bpb_note": (
        "On held-out documents; lower is better. Comparable across tokenizers.",
        "在留出文档上测得，越低越好；不同分词器之间可以比较。",
    ),
    "bpb_caption": (
        "Language {language}: bits per byte per held-out source and model, with {confidence} intervals.",
        "语言 {language}：各留出来源与各模型的每字节比特数及 {confidence} 区间。",
    ),
    "forgetting": ("Forgetting", "遗忘"),
    "forgetting_caption": (
        "Change of bits per byte from the first model to the second, with {confidence} intervals. "
        "Right of 0: worse, that is forgetting. Left of 0: better.",
        "从前一模型到后一模型每字节比特数的变化及 {confidence} 区间。0 右侧：变差，即遗忘；左侧：变好。",
    ),
    "contamination": ("Contamination", "污染检查"),
    "contamination_note": (
        "A question is touched where a document shares {ngram} characters in a row with it. “To leave out”: touched by a document that is "
        "kept and may be trained on; panda data contamination gives the scores without them.",
        "文档与题目有连续 {ngram} 个字符相同，即算触及。“应排除”：被保留且可能用于训练的文档触及的题目；"
        "用 panda data contamination 可得到排除后的得分。",
    ),
    "touched": ("Touched", "触及"),
    "touched_share": ("Share", "占比"),
    "exclude": ("To leave out", "应排除"),
    "action": ("Action", "处理"),
    "action_drop": ("taken out", "已删除"),
    "action_report": ("reported, kept", "仅报告，保留"),
    "strongest": ("The questions that documents hold most of", "被文档覆盖最多的题目"),
    "of_question": ("Share of the question", "占题目比例"),
    "document": ("Strongest document", "重合最多的文档"),
    "spread": ("Prompt spread", "提示差异"),
    "spread_note": (
        "The same questions under several prompts. Mean with its {confidence} interval, in which prompts count as a sample too; spread "
        "is the standard deviation between prompts, the noise of the questions included.",
        "同一批题目在多个提示下的结果。均值及其 {confidence} 区间（提示也视为抽样）；差异为各提示间的标准差（含题目抽样的噪声）。",
    ),
    "prompts_n": ("Prompts", "提示数"),
    "mean": ("Mean", "均值"),
    "lowest": ("Lowest", "最低"),
    "highest": ("Highest", "最高"),
    "spread_of": ("Spread", "差异"),
    "published": (
        "The paper (arXiv 2305.03025), on its test set of {n} questions{other}:",
        "论文（arXiv 2305.03025），其测试集共 {n} 题{other}：",
    ),
    "published_other": (", which are not those asked here", "，与此处所问不同"),
    "constant_of": ("always {letter}", "总选 {letter}"),
    "share": ("Share", "占比"),
    "wanted": ("Wanted", "目标占比"),
    "questions": ("Questions", "题目与回答"),
    "questions_note": (
        "Every model's answer to every question. Letters are the options in the order stored; ✓ right, ✗ wrong, "
        "∅ no answer found in what the model wrote.",
        "各模型对每道题的回答。字母按存储顺序对应选项；✓ 正确，✗ 错误，∅ 生成内容中未找到答案。",
    ),
    "questions_capped": (
        "{shown} of {total} questions are shown, evenly spaced through the file; all are in rows.jsonl of the run.",
        "共 {total} 题，此处按文件顺序等距显示 {shown} 题；全部见运行文件夹中的 rows.jsonl。",
    ),
    "no_scores": (
        "The scores of single options were left out to keep the page small; they are in rows.jsonl.",
        "为控制页面大小，未收入各选项的得分；见 rows.jsonl。",
    ),
    "unpacking": ("Unpacking the questions …", "正在解压题目……"),
    "too_old": (
        "This browser cannot unpack the questions: use one of 2023 or newer. They are in rows.jsonl and questions.jsonl of the run.",
        "此浏览器无法解压题目，请使用 2023 年以后的浏览器。题目见运行文件夹中的 rows.jsonl 与 questions.jsonl。",
    ),
    "no_text": (
        "Made with --no-text: ids, choices and scores only, without the text of questions, options and completions.",
        "以 --no-text 生成：只含编号、选择与得分，不含题目、选项与生成文本。",
    ),
    "questions_print": (
        "The questions are left out in print; open the file in a browser to search them.",
        "打印版不含题目；请在浏览器中打开本文件检索。",
    ),
    "need_js": (
        "The questions and the language switch need JavaScript; everything else is readable without.",
        "题目检索与语言切换需要 JavaScript；其余内容无需即可阅读。",
    ),
    "search": ("Search text or id", "检索文本或编号"),
    "all_tasks": ("All tasks", "全部任务"),
    "all_prompts": ("All prompts", "全部提示"),
    "disagree": ("models disagree", "模型回答不一致"),
    "previous": ("Previous", "上一页"),
    "next": ("Next", "下一页"),
    "found": ("{n} questions", "{n} 题"),
    "page": ("page {p} of {n}", "第 {p} / {n} 页"),
    "context": ("Passage", "材料"),
    "completion": ("What the models wrote", "模型生成的内容"),
    "option_scores": ("Score of each option", "各选项得分"),
    "release": ("Release", "发布"),
    "release_note": (
        "The target is shipped as a delta against the base.",
        "目标模型以相对基座的差量形式发布。",
    ),
    "verified": (
        "verified: base + delta equals the target bit for bit",
        "已验证：基座 + 差量与目标逐比特相同",
    ),
    "not_verified": ("not verified", "未验证"),
    "delta_bytes": ("delta", "差量大小"),
    "target_bytes": ("whole target", "完整目标大小"),
    "ratio": ("delta / target", "差量 / 目标"),
    "tensors": ("tensors", "张量数"),
    "base": ("base", "基座"),
    "target": ("target", "目标"),
    "provenance": ("Provenance", "来历"),
    "command": ("Command", "命令"),
    "recipe": ("Recipe", "配方"),
    "stages": ("Stages", "阶段"),
    "machine": ("Machine", "硬件"),
    "versions": ("Versions", "版本"),
    "tables": ("Score table to paste", "可粘贴的得分表"),
    "task": ("Task", "任务"),
    "group": ("group", "分组"),
    "prompt": ("Prompt", "提示"),
    "method": ("Method", "方法"),
    "likelihood": ("likelihood", "似然"),
    "generation": ("generated", "生成"),
    "model": ("Model", "模型"),
    "accuracy": ("Accuracy", "准确率"),
    "interval": ("Interval", "区间"),
    "n": ("n", "n"),
    "clusters": ("Clusters", "簇数"),
    "chance": ("Chance", "随机"),
    "constant": ("Best constant", "最佳常数"),
    "unparsed": ("Unparsed", "未解析"),
    "is_chance": ("≈ chance", "≈ 随机"),
    "near_chance": ("Near chance:", "接近随机："),
    "what": ("What", "内容"),
    "difference": ("Difference", "差异"),
    "p": ("p", "p"),
    "p_holm": ("p, Holm", "校正 p（Holm）"),
    "verdict": ("Verdict", "结论"),
    "b_higher": ("b higher", "b 更高"),
    "b_lower": ("b lower", "b 更低"),
    "unsettled": ("not established", "不能确认"),
    "corpus": ("Corpus", "语料"),
    "source": ("Source", "来源"),
    "language": ("Language", "语言"),
    "documents": ("Documents", "文档数"),
    "bytes": ("Bytes", "字节"),
    "change": ("Change", "变化"),
    "better": ("better", "变好"),
    "worse": ("worse", "变差"),
    "records": ("Records", "记录数"),
    "kept": ("kept", "保留"),
    "held_out": ("held out", "留出"),
    "duplicate": ("duplicate", "重复"),
    "contaminated": ("contaminated", "污染"),
    "dropped": ("dropped", "丢弃"),
    "quarantined": ("quarantined", "隔离"),
    "adds_up": ("Adds up", "账平"),
    "yes": ("yes", "是"),
    "no": ("no", "否"),
    "fate": ("Fate", "去向"),
    "unique": ("Unique", "不重复"),
    "trained": ("Trained", "受训"),
    "masked": ("Masked", "掩蔽"),
    "truncated": ("Truncated", "截断"),
    "over_budget": ("Over budget", "超出预算"),
    "exposures": ("Exposures", "曝光"),
    "passes": ("Passes", "遍数"),
    "total": ("total", "合计"),
    "stage": ("Stage", "阶段"),
    "kind": ("Kind", "类型"),
    "reused": ("reused", "复用"),
    "seconds": ("Seconds", "秒"),
    "key": ("Key", "键"),
    "digest": ("Digest", "摘要值"),
    "facts": ("Facts", "事实"),
    "axis_step": ("step", "步"),
    "axis_trained": ("trained tokens", "受训词元"),
    "axis_loss": ("loss", "损失"),
    "axis_accuracy": ("accuracy, %", "准确率，%"),
    "axis_points": ("percentage points, b − a", "百分点，b − a"),
    "axis_share": ("share of records, %", "记录占比，%"),
    "axis_tokens": ("tokens read", "读取的词元"),
    "axis_bpb": ("bits per byte", "每字节比特数"),
    "axis_change": ("change of bits per byte, %", "每字节比特数的变化，%"),
    "all_sources": ("all", "全部"),
    "footer": (
        "Made from the files of the run folder by pandallm {version}; no number was recomputed. "
        "This page is one file and loads nothing from the network.",
        "由 pandallm {version} 根据运行文件夹中的文件生成，未重新计算任何数值。本页为单一文件，不从网络加载任何内容。",
    ),
}


def text(key: str, language: str, /, **values: Any) -> str:
    """One fixed text in one language, with values filled in (plain text, not yet escaped)."""
    return TEXT[key][LANGUAGES.index(language)].format(**values)


def asked_how(row: Mapping[str, Any]) -> str:
    """The prompt of a row, with examples, chat template and rotation of the options where there are any."""
    shots = f" {row['shots']}-shot" if row.get("shots") else ""
    order = f" order {row['order']}" if row.get("order") else ""
    return f"{row['prompt']}{shots}{' chat' if row.get('chat') else ''}{order}"


def percent(value: float | None) -> str:
    """0.8125 -> `81.2%`; None -> `–`."""
    return "–" if value is None else f"{100 * value:.1f}%"


def signed(value: float | None, unit: str = "") -> str:
    """0.031 -> `+3.1` (hundredths) with a true minus sign; None -> `–`."""
    return "–" if value is None else f"{100 * value:+.1f}{unit}".replace("-", "−")


def p_value(value: float | None) -> str:
    """p to three places, `< 0.001` below that."""
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def count(value: Any) -> str:
    """12345 -> `12,345`; other numbers to four digits; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "–" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def size(value: float | None) -> str:
    """Bytes in decimal units: 4321000 -> `4.32 MB`."""
    if value is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def duration(seconds: float | None, language: str = "en") -> str:
    """59.2 -> `59 s`, 3700 -> `1 h 1 min`; in Chinese `59 秒`, `1 小时 1 分`."""
    if seconds is None:
        return "–"
    hour, minute, second = ("小时", "分", "秒") if language == "zh" else ("h", "min", "s")
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} {second}" if seconds >= 10 else f"{seconds:.1f} {second}"
    if whole < 3600:
        return f"{whole // 60} {minute} {whole % 60} {second}"
    return f"{whole // 3600} {hour} {whole % 3600 // 60} {minute}"


def language_name(code: str, language: str) -> str:
    """`zh` -> `Chinese` or `中文`; unknown codes stay as they are."""
    names = {"en": ("English", "英文"), "zh": ("Chinese", "中文")}
    return names[code][LANGUAGES.index(language)] if code in names else code
