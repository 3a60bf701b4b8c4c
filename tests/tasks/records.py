"""Hand-written records of every built-in benchmark, in its published schema and under its published file names."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: task -> published name of a file -> its records. For CSV the first record names the columns.
FILES: dict[str, dict[str, list[Any]]] = {
    "c3-d": {
        "c3-d-test.json": [
            [
                ["女：这么晚了，你还不回家？", "男：图书馆十点才关门，我想把书看完。"],
                [
                    {"question": "男的现在在哪儿？", "choice": ["图书馆", "家里", "书店"], "answer": "图书馆"},
                    {"question": "图书馆几点关门？", "choice": ["八点", "九点", "十点", "十一点"], "answer": "十点"},
                ],
                "1-1",
            ],
            [
                ["男：明天去爬山吗？", "女：天气预报说有雨，改天吧。"],
                [{"question": "女的为什么不去？", "choice": ["要下雨", "太累"], "answer": "要下雨"}],
                "1-2",
            ],
        ],
        "c3-d-train.json": [
            [
                ["男：要咖啡还是茶？", "女：茶。"],
                [{"question": "女的喝什么？", "choice": ["茶", "咖啡"], "answer": "茶"}],
                "9-1",
            ]
        ],
    },
    "c3-m": {
        "c3-m-test.json": [
            [
                ["村口有一棵老槐树。夏天，老人们坐在树下下棋；\n冬天，孩子们在树下堆雪人。"],
                [
                    {"question": "老人们什么时候下棋？", "choice": ["春天", "夏天", "秋天", "冬天"], "answer": "夏天"},
                    {"question": "孩子们在树下做什么？", "choice": ["下棋", "堆雪人", "唱歌"], "answer": "堆雪人"},
                ],
                "m1-1",
            ]
        ],
        "c3-m-train.json": [
            [
                ["小李每天骑车上班。"],
                [{"question": "小李怎么上班？", "choice": ["骑车", "坐船"], "answer": "骑车"}],
                "m9-1",
            ]
        ],
    },
    "logiqa2-zh": {
        "test_zh.txt": [
            {
                "id": 11,
                "answer": 2,
                "text": "凡是参加合唱团的人都会识谱。小周不会识谱。",
                "question": "由此可以推出：",
                "options": ["小周会唱歌。", "小周想学识谱。", "小周没有参加合唱团。", "合唱团人很少。"],
            },
            {
                "example_id": 12,
                "answer": 1,
                "text": "甲、乙、丙三人中只有一人说谎。甲说乙说谎，乙说丙说谎，丙说自己没有说谎。",
                "question": "说谎的是谁？",
                "options": ["A. 甲", "B. 乙", "C. 丙", "D. 无法确定"],
            },
        ],
        "train_zh.txt": [
            {"id": 91, "answer": 0, "text": "猫都怕水。", "question": "可知：", "options": ["有的猫怕水", "狗怕水"]}
        ],
    },
    "logiqa2-en": {
        "test.txt": [
            {
                "id": 21,
                "answer": 3,
                "text": "Every ferry that leaves before noon stops at the island. The red ferry does not stop there.",
                "question": "What follows?",
                "type": {"Sufficient Conditional Reasoning": True},
                "options": [
                    "The red ferry is slow.",
                    "The red ferry leaves before noon.",
                    "No ferry leaves after noon.",
                    "The red ferry does not leave before noon.",
                ],
            }
        ],
        "train.txt": [
            {
                "id": 92,
                "answer": 1,
                "text": "All of the lamps are lit.",
                "question": "So:",
                "options": ["Lamps are cheap.", "The hall lamp is lit."],
            }
        ],
    },
    "ceval": {
        "ceval-exam/val/garden_history_val.csv": [
            ["id", "question", "A", "B", "C", "D", "answer"],
            ["0", "园林中用来框住景物的门洞称为____。", "月洞门", "照壁", "牌楼", "影壁", "A"],
            ["1", '下列哪一种石材以"瘦、漏、透、皱"著称？', "花岗石", "太湖石", "大理石", "汉白玉", "B"],
        ],
        "ceval-exam/val/simple_sums_val.csv": [
            ["id", "question", "A", "B", "C", "D", "answer"],
            ["0", "一个数加三得十,\n这个数是____。", "5", "6", "7", "8", "C"],
        ],
        "ceval-exam/dev/garden_history_dev.csv": [
            ["id", "question", "A", "B", "C", "D", "answer", "explanation"],
            ["0", "江南园林多用____墙。", "白", "红", "黄", "黑", "A", "1. 江南园林以粉墙黛瓦为特色。"],
        ],
        "ceval-exam/dev/simple_sums_dev.csv": [
            ["id", "question", "A", "B", "C", "D", "answer", "explanation"],
            ["0", "二加二等于____。", "1", "2", "3", "4", "D", "逐一相加即可。"],
        ],
    },
    "cmmlu": {
        "data/test/tea_culture.csv": [
            ["", "Question", "A", "B", "C", "D", "Answer"],
            ["0", "制作绿茶的第一步通常是", "杀青", "发酵", "渥堆", "窨花", "A"],
            ["1", "下列茶中属于全发酵茶的是", "绿茶", "白茶", "黄茶", "红茶", "D"],
        ],
        "data/test/river_geography.csv": [
            ["", "Question", "A", "B", "C", "D", "Answer"],
            ["0", "河流的下游通常", "落差大", "河面宽", "水流急", "多峡谷", "B"],
        ],
        "data/dev/tea_culture.csv": [
            ["", "Question", "A", "B", "C", "D", "Answer"],
            ["0", "泡茶不宜用", "泉水", "海水", "井水", "纯净水", "B"],
        ],
        "data/dev/river_geography.csv": [
            ["", "Question", "A", "B", "C", "D", "Answer"],
            ["0", "河流的源头多在", "海边", "平原", "山区", "城市", "C"],
        ],
    },
    "gaokao-mcq": {
        "Data/Objective_Questions/2010-2022_History_MCQs.json": [
            {
                "year": "2010",
                "category": "（模拟）",
                "question": "1．（ 4分）古代驿站的主要作用是（ \u3000\u3000） \nA．传递公文   B．征收赋税  \nC．开垦荒地  D．选拔官员\n",
                "answer": ["A"],
                "analysis": "驿站供传递公文的人换马休息。",
                "index": 0,
                "score": 4,
            }
        ],
        "Data/Objective_Questions/2010-2022_Physics_MCQs.json": [
            {
                "year": "2011",
                "category": "（模拟）",
                "question": "2. （6 分) 物体匀速直线运动时, 下列说法正确的是 ( )\nA. 合力为零\nB. 速度不变\nC. 加速度变大\nD. 动能增大\n",
                "answer": ["AB"],
                "analysis": "",
                "index": 0,
                "score": 6,
            },
            {
                "year": "2012",
                "category": "（模拟）",
                "question": "3. （6 分) 若 $F=ma$, 质量不变而合力加倍, 则加速度 ( )\nA. 减半\nB. 不变\nC. 加倍\nD. 变为四倍\n",
                "answer": ["C"],
                "analysis": "",
                "index": 1,
                "score": 6,
            },
        ],
        "Data/Objective_Questions/2010-2022_Geography_MCQs.json": [
            {
                "year": "2013",
                "category": "（模拟）",
                "question": "某海岛夏季多雾，冬季多风。据此完成 1～2 题。\n1．（4 分）该岛夏季多（ ） A．雾 B．雪 C．霜 D．沙尘\n2．（4 分）该岛最宜发展（ ）A．水电 B．风电 C．核电 D．火电\n",
                "answer": ["A", "B"],
                "analysis": "",
                "index": 0,
                "score": 4,
            }
        ],
    },
    "agieval-zh": {
        f"data/v1/{part}.jsonl": [
            {
                "passage": passage,
                "question": f"关于{what}，下列说法正确的是",
                "options": ["(A)前者", "(B)后者", "(C)都对", "(D)都不对"],
                "label": label,
                "answer": None,
                "other": None,
            }
        ]
        for part, passage, what, label in (
            ("gaokao-chinese", "山路弯弯，桥下流水潺潺。", "山路", "A"),
            ("gaokao-geography", None, "季风", "B"),
            ("gaokao-history", None, "漕运", "C"),
            ("gaokao-biology", None, "叶绿体", "D"),
            ("gaokao-chemistry", None, "酸碱", "A"),
            ("gaokao-physics", None, "浮力", ["B", "D"]),
            ("gaokao-mathqa", None, "集合", "A C"),
            ("logiqa-zh", "若甲去，则乙去。乙没有去。", "甲", "B"),
            ("jec-qa-kd", None, "合同", ["C"]),
            ("jec-qa-ca", None, "侵权", ["A", "B", "C", "D"]),
        )
    },
}

#: Questions that the records above give in the task's default split, and what is left out of them.
EXPECTED: dict[str, tuple[int, dict[str, int]]] = {
    "c3-d": (3, {}),
    "c3-m": (2, {}),
    "logiqa2-zh": (2, {}),
    "logiqa2-en": (1, {}),
    "ceval": (3, {}),
    "cmmlu": (3, {}),
    "gaokao-mcq": (4, {"several right answers": 1}),
    "agieval-zh": (7, {"several right answers": 3}),
}


def write_records(task_name: str, folder: Path) -> Path:
    """Write the records of a built-in task below `folder`; returns the folder, as `--data` takes it."""
    for name, records in FILES[task_name].items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".csv":
            write_csv(path, records)
        elif task_name == "gaokao-mcq":
            text = json.dumps({"keywords": path.stem, "example": records}, ensure_ascii=False, indent=4)
            path.write_text(text, encoding="utf-8")
        elif path.suffix == ".json":
            path.write_text(json.dumps(records, ensure_ascii=False, indent=1), encoding="utf-8")
        else:
            path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    return folder


def write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as f:
        csv.writer(f).writerows(rows)
