"""A small Llama whose tokenizer has real merges, and generated questions in the published schemas of C3 and LogiQA 2.0."""

import json
import random
from pathlib import Path
from typing import Any

NAMES = ["小明", "李芳", "王老师", "张医生", "陈先生", "刘阿姨", "赵强", "孙教授", "周经理", "吴同学"]
PLACES = ["图书馆", "火车站", "公园", "医院", "学校门口", "超市", "电影院", "湖边", "办公室", "老家的村子"]
THINGS = ["一本旧词典", "两张电影票", "三斤苹果", "新买的自行车", "一封信", "生日蛋糕", "一台电脑", "红色的雨伞"]
DEEDS = ["看书", "等朋友", "散步", "买东西", "讨论工作", "学习英语", "准备考试", "修理机器", "照顾孩子", "写文章"]
TIMES = ["昨天上午", "今天下午", "上个星期天", "明年春天", "晚饭以后", "下雨的时候", "放假的第一天"]
LINKS = ["因为", "虽然", "如果", "除非", "只要"]

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)


def sentence(r: random.Random) -> str:
    """One generated sentence."""
    forms = (
        f"{r.choice(TIMES)}，{r.choice(NAMES)}在{r.choice(PLACES)}{r.choice(DEEDS)}。",
        f"{r.choice(NAMES)}给{r.choice(NAMES)}带来了{r.choice(THINGS)}，两个人都很高兴。",
        f"{r.choice(LINKS)}{r.choice(NAMES)}要{r.choice(DEEDS)}，{r.choice(NAMES)}就去{r.choice(PLACES)}{r.choice(DEEDS)}。",
        f"从{r.choice(PLACES)}到{r.choice(PLACES)}要走{r.randint(2, 90)}分钟。",
    )
    return r.choice(forms)


def options(r: random.Random) -> list[str]:
    """Two to four different options of uneven length."""
    pool = r.choice([PLACES, THINGS, DEEDS, [f"{n}在{p}{d}" for n, p, d in zip(NAMES, PLACES, DEEDS)]])
    return r.sample(pool, r.randint(2, 4))


def write_c3(path: Path, kind: str, passages: int, seed: int) -> None:
    """`c3-m-dev.json` or `c3-d-dev.json`: [[turns], [{question, choice, answer}], id] per passage."""
    r = random.Random(seed)
    out: list[Any] = []
    for p in range(passages):
        said = [sentence(r) for _ in range(r.randint(2, 8))]
        turns = [f"{'男女'[i % 2]}：{s}" for i, s in enumerate(said)] if kind == "d" else ["".join(said)]
        asked = []
        for _ in range(r.randint(1, 4)):
            choice = options(r)
            asked.append({"question": f"{r.choice(NAMES)}做了什么？", "choice": choice, "answer": r.choice(choice)})
        out.append([turns, asked, f"g{p}"])
    path.write_text(json.dumps(out, ensure_ascii=False), encoding="utf-8")


def write_logiqa2(path: Path, questions: int, seed: int) -> None:
    """`dev_zh.txt`: {"id", "answer", "text", "question", "options"} a line; some options carry their letter."""
    r = random.Random(seed)
    lines = []
    for i in range(questions):
        shown = r.sample([sentence(r) for _ in range(8)], 4)
        if i % 3 == 0:
            shown = [f"{letter}.{o}" for letter, o in zip("ABCD", shown)]
        record = {
            "id": i,
            "answer": r.randrange(4),
            "text": "".join(sentence(r) for _ in range(r.randint(2, 5))),
            "question": "以下哪项最能支持上述论述？",
            "options": shown,
        }
        lines.append(json.dumps(record, ensure_ascii=False))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def small_llama(folder: Path, *, bos: bool = False, positions: int = 1024, vocabulary: int = 1200) -> Path:
    """Two layers with weights large enough that options differ; words and punctuation may merge into one token.

    `bos`: the tokenizer puts `<s>` before every text, as Llama's does.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    r = random.Random(11)
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<eos>", "<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [sentence(r) for _ in range(2000)]
    texts += ["The quick brown fox jumps over the lazy dog."] * 20
    backend.train_from_iterator(texts, trainer)
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>", **({"bos_token": "<s>"} if bos else {})
    )
    tokenizer.chat_template = ("{{ bos_token }}" if bos else "") + CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        bos_token_id=1 if bos else None,
        eos_token_id=0,
        pad_token_id=0,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
