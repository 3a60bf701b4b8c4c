"""The fixed sentences of the page of answers, in English and Chinese."""

TEXT: dict[str, tuple[str, str]] = {
    "title": ("Answers side by side", "回答并排对比"),
    "about": (
        "{models} models answer {prompts} open-ended prompts. For each prompt the answers stand in an order drawn at random, and "
        "the names are hidden. Read, vote, then reveal. Once the names of a prompt are revealed, its vote is closed.",
        "{models} 个模型回答 {prompts} 个开放式提示。每个提示的回答按随机顺序排列，不显示模型名称。请先阅读并投票，再揭示名称；"
        "名称揭示后，该提示的投票即关闭。",
    ),
    "about_one": (
        "One model answers {prompts} open-ended prompts.",
        "一个模型回答 {prompts} 个开放式提示。",
    ),
    "results": ("Results", "结果"),
    "models": ("Models", "模型"),
    "all_categories": ("All categories", "全部类别"),
    "all_languages": ("All languages", "全部语言"),
    "only_open": ("Not yet voted on", "尚未投票"),
    "user": ("User", "用户"),
    "answer": ("Answer", "回答"),
    "tokens": ("{n} tokens", "{n} 个词元"),
    "by_length": ("cut off at the limit", "到上限截断"),
    "no_room": (
        "No answer: the dialogue leaves no room in the model's window.",
        "无回答：对话已占满模型的上下文窗口。",
    ),
    "empty": ("(empty answer)", "（空回答）"),
    "better": ("{n} is better", "{n} 更好"),
    "tie": ("Tie", "平局"),
    "rank": ("Rank", "名次"),
    "rank_note": ("1 is best; equal ranks are a tie.", "1 为最好；名次相同即平局。"),
    "reveal": ("Reveal names", "揭示名称"),
    "reveal_all": ("Reveal all and show results", "全部揭示并显示结果"),
    "reveal_sure": (
        "Press again: {n} prompts without a vote will be closed",
        "再按一次：{n} 个未投票的提示将关闭",
    ),
    "download": ("Download votes.json", "下载 votes.json"),
    "clear": ("Clear votes", "清除投票"),
    "clear_sure": ("Press again to clear all votes", "再按一次清除全部投票"),
    "progress": ("Voted on {n} of {total}", "已投票 {n} / {total}"),
    "kept": ("Votes are kept in this browser.", "投票保存在本浏览器中。"),
    "not_kept": (
        "This browser does not keep votes of local files: download them before you close the page.",
        "本浏览器不保存本地文件的投票：关闭页面前请先下载。",
    ),
    "need_js": (
        "Voting, names and filters need JavaScript; the prompts and answers are readable without.",
        "投票、名称与筛选需要 JavaScript；提示与回答无需即可阅读。",
    ),
    "votes_here": ("Your votes", "您的投票"),
    "votes_note": (
        "Counts of the votes on this page. For intervals and tests: panda answers --votes votes.json FOLDER.",
        "本页投票的计数。区间与检验请运行：panda answers --votes votes.json 文件夹。",
    ),
    "judge": ("Judge", "评判模型"),
    "judge_note": (
        "{model} compared each pair in both orders. Win rate is a's, ties count half; a verdict that changes with the order is "
        "a tie. p: sign-flip over prompts; p (Holm): adjusted over the pairs.",
        "{model} 以两种顺序比较了每一对回答。胜率为 a 的胜率，平局计半；随顺序改变的判断计为平局。"
        "p：对提示作符号翻转检验；p（Holm）：对各对校正。",
    ),
    "judge_trust": (
        "Of {pairs} pairs with both verdicts read, {consistent} kept their verdict when the order was swapped. {unparsed} of {asked} replies held no "
        "verdict in the asked form, {too_long} requests were too long for the judge. {identical} pairs were equal word for word and were not asked; {left_out} lacked an answer.",
        "在两种判断均可读取的 {pairs} 对中，{consistent} 对交换顺序后判断不变。{asked} 条回复中有 {unparsed} 条未按要求给出判断，{too_long} 次请求超出评判模型的窗口。"
        "{identical} 对逐字相同，未提问；{left_out} 对缺少回答。",
    ),
    "judge_first": (
        "Of the {verdicts} verdicts that were no tie, {share} [{low}, {high}] favoured the answer shown first (without position bias: 50%).",
        "在 {verdicts} 条非平局判断中，{share} [{low}, {high}] 倾向先出现的回答（无位置偏差时为 50%）。",
    ),
    "verdict": ("Judge's verdict", "评判结果"),
    "shown_first": ("first shown: {name}", "先出现：{name}"),
    "unparsed": ("no verdict read", "未读出判断"),
    "a_wins": ("a better", "a 更好"),
    "ties": ("ties", "平局"),
    "b_wins": ("b better", "b 更好"),
    "win_rate": ("win rate of a", "a 的胜率"),
    "interval": ("interval", "区间"),
    "p": ("p", "p"),
    "p_holm": ("p (Holm)", "p（Holm）"),
    "model": ("model", "模型"),
    "template": ("chat template", "对话模板"),
    "yes": ("yes", "有"),
    "no": ("no", "无"),
    "answers": ("answers", "回答数"),
    "ended": ("ended by itself", "自行结束"),
    "cut": ("cut off", "被截断"),
    "without": ("no room", "无空间"),
    "mean_tokens": ("mean tokens", "平均词元数"),
    "mean_characters": ("mean characters", "平均字符数"),
    "hidden_results": (
        "Names, the models' table and the judge's verdicts appear after “Reveal all”, so that they cannot sway a reader.",
        "模型名称、模型表与评判结果在“全部揭示”之后显示，以免影响读者。",
    ),
    "footer": (
        "Greedy decoding, at most {tokens} new tokens, seed of the order {seed}. Made by pandallm {version}. This page is one "
        "file and loads nothing from the network. The names stand in its source: hidden from a glance, not from a search.",
        "贪心解码，最多 {tokens} 个新词元，顺序种子 {seed}。由 pandallm {version} 生成。本页为单一文件，不从网络加载任何内容。"
        "模型名称存于页面源码中：只是不直接显示，并未加密。",
    ),
}
