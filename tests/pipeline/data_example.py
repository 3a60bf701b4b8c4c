"""A recipe whose corpora lose records in every way, with a model and a benchmark that one kept and one dropped document touch."""

import json
from pathlib import Path

from pandallm.model.scratch import init_scratch
from pandallm.model.spec import ArchitectureSpec
from pandallm.store import write_jsonl
from tests.data.small_tokenizers import byte_level

HOSTILE = "[bold]粗[/bold] \x1b[31m红\u202e右到左 [/nothing]"
TASK = (
    'name: lake\nreader: mcq\nfiles: lake.jsonl\nprompts: {text: {template: "{context}\\n问题：{question}\\n答案："}}\n'
)
RECIPE = """\
name: lakes
base: {model: MODEL}
corpora:
  texts:
    sources:
      wiki: {adapter: wiki, files: "RAW/wiki.jsonl", share: 0.9, max_epochs: 1}
      "news [bold]": {adapter: text, files: "RAW/news.jsonl", share: 0.1}
    clean: [{kind: normalize}, {kind: length, min_chars: 10}, {kind: language, keep: [zh]}, {kind: score}]
    dedup: {kind: minhash}
    decontaminate: {against: [lake]}
    held_out: {documents: 2}
  talks:
    sources:
      alpaca: {adapter: alpaca, files: "RAW/alpaca.jsonl"}
    decontaminate: {against: [lake], action: report}
stages:
  pretrain: {from: base, corpus: texts, steps: 12, sequence_length: 64, batch_sequences: 2, optimizer: {lr: 1e-3}}
  instruct: {from: pretrain, corpus: talks, epochs: 1, sequence_length: 128, batch_sequences: 2, optimizer: {lr: 1e-3}}
tasks: {lake: "RAW/lake.yaml"}
evaluate: {models: [base, instruct], tasks: [lake], prompts: [text], methods: [likelihood]}
runtime: {workers: 1, threads: 1, device: cpu, store: "ROOT/store", runs: "ROOT/runs"}
"""


def write_recipe(root: Path) -> Path:
    """The recipe's file in `root`, which also gets its data, its model, and later its store and runs."""
    raw = root / "raw"
    raw.mkdir(parents=True)
    shared = "湖水在夏天的傍晚慢慢变成深蓝色而远处的山仍然亮着"
    boat = "小船每天清晨把新鲜的鱼运到城里去卖给面馆"
    questions = [
        {"id": f"q{i}", "context": {0: shared, 1: boat}.get(i) or f"第{i}个人住在湖边的第{i}座木屋里面。"}
        | {"question": f"他叫什么{i}？", "options": ["甲", "乙"], "answer": i % 2}
        for i in range(8)
    ]
    write_jsonl(raw / "lake.jsonl", questions)
    (raw / "lake.yaml").write_text(TASK, encoding="utf-8")
    wiki = [{"id": str(i), "title": f"第{i}篇", "text": _document(i)} for i in range(24)]
    wiki += [
        {"id": "copy", "title": "第3篇", "text": _document(3)},
        {"id": "near", "title": "第5篇", "text": _document(5) + "！"},
        {"id": "short", "title": "", "text": "短"},
        {"id": "english", "title": "", "text": "This text is in English and goes."},
        {"id": "touches", "title": "", "text": f"有人写道：{shared}，然后回家。"},
    ]
    lines = [json.dumps(r, ensure_ascii=False) for r in wiki]
    lines.insert(7, '{"id": "broken", "title": ')
    (raw / "wiki.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_jsonl(raw / "news.jsonl", [{"text": f"{HOSTILE}，第{i}条：{_document(40 + i)}"} for i in range(8)])
    talks = [{"instruction": f"问{i}：怎么走？", "input": "", "output": f"走{_document(60 + i)}"} for i in range(6)]
    talks.append({"instruction": "讲讲小船", "input": "", "output": f"{boat}的老板。"})
    write_jsonl(raw / "alpaca.jsonl", talks)
    tokenizer = byte_level(root / "tokenizer")
    spec = ArchitectureSpec(hidden_size=16, layers=1, heads=2, intermediate_size=16, max_position_embeddings=512)
    init_scratch(spec, tokenizer, root / "base", seed=0)
    file = root / "recipe.yaml"
    text = RECIPE.replace("MODEL", str(root / "base")).replace("RAW", str(raw)).replace("ROOT", str(root))
    file.write_text(text, encoding="utf-8")
    return file


def _document(number: int) -> str:
    """Sentences that no other number's share five characters of in a row, but for chance."""
    return "。".join(
        "".join(chr(0x4E00 + (number * 977 + k * 131 + j * 17) % 9000) for j in range(14)) for k in range(3)
    )
