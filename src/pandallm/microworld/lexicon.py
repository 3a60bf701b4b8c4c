"""The words of the made-up world: names, values and the sentences that state or ask a fact, in Chinese and in English.

A fact is (person, attribute, value). Every attribute has twelve values, each of two Chinese characters, so that options have equal
length and a sum of log-probabilities needs no length correction.
"""


def _pairs(chinese: str, english: str) -> tuple[tuple[str, str], ...]:
    """Blank-separated words in two languages, side by side."""
    return tuple(zip(chinese.split(), english.split(), strict=True))


SURNAMES = _pairs(
    "林 陈 赵 钱 孙 李 周 吴 郑 王 冯 卫 蒋 沈 韩 杨",
    "Lin Chen Zhao Qian Sun Li Zhou Wu Zheng Wang Feng Wei Jiang Shen Han Yang",
)

#: One given-name character belongs to one person only: at this model size a name of shared parts is not told apart.
_GIVEN_CHARACTERS = (
    "伟芳娜敏静丽强磊军洋勇艳杰娟涛超秀霞平刚桂华兰梅琳晶欣莹雪慧婷宇浩轩昊博然涵睿泽瑞辰晨阳哲骏凯鑫鹏飞翔波斌彬宏志毅峰岩俊"
    "恒远航珊珍琴瑶璐瑾瑜璇琪琦琼瑛玲珂珠莉莎萍蓉蕾薇菲萱芸芝芬芷茜荷菊菁萌蓓娇婉娴嫣妍姝妮婕媛怡悦恬惠慈忆思恩怀情诗词韵音歆"
    "馨香芹葵蔓藤桐梓楠槿榕桦柳枫柏栋梁森杉桃杏棠枝叶彤丹朱赤绯绿碧蓝紫银铭钧锋锐钰铁锦鉴镇祥福禄寿禧祺祯礼裕禹尧舜康泰安顺谐"
    "睦邦国仁义信诚忠孝廉耻勤勉励进旭昕晖晓昭晴暖曦晟昱昂昌映星晗曼朗朔望朋期潇涓洁清淑深渊源溪澜涟漪沛润澄浅淳浦渝滨潮瀚澎湃"
    "泓沁沐沅汐洲淇渺滢霖霄霏露雯霜震霆雷电岚岳峻嵩崇巍峥嵘岱岭崖野田园圃坤垚培壁墨笔书琢砚策简册典雅颂风骚曲谱旋吟唱咏叹鸣啸"
    "鸿鹄鹤鹰雁燕莺凤凰鸾鹃鹭骐骥驰骋驭驹舒展弘扬振奋腾跃启迪智颖聪悟觉醒灵巧妙奇伦卓越冠群豪才彦儒德行健立功言正直端庄肃穆威"
)
_ONSETS = "b p m f d t n l g k h j q x zh ch sh r z s"
_RHYMES = {"dev": "a e i o u ai ao an en", "test": "ang ei ou in ing ong un ie uo"}


def given_names(split: str) -> list[tuple[str, str]]:
    """(Chinese, English) given names of a split; `dev` and `test` share none."""
    characters = _GIVEN_CHARACTERS[0::2] if split == "dev" else _GIVEN_CHARACTERS[1::2]
    english = [(onset + rhyme).capitalize() for onset in _ONSETS.split() for rhyme in _RHYMES[split].split()]
    return list(zip(characters, english, strict=True))


ATTRIBUTES = ("city", "job", "food", "pet")

VALUES: dict[str, tuple[tuple[str, str], ...]] = {
    "city": _pairs(
        "青港 白川 云州 石湾 金陵 红桥 月湖 松江 海宁 沙坪 龙泉 北塘",
        "Qinggang Baichuan Yunzhou Shiwan Jinling Hongqiao Yuehu Songjiang Haining Shaping Longquan Beitang",
    ),
    "job": _pairs(
        "教师 医生 厨师 画家 律师 农民 司机 木匠 歌手 记者 护士 渔夫",
        "teacher doctor cook painter lawyer farmer driver carpenter singer reporter nurse fisher",
    ),
    "food": _pairs(
        "饺子 面条 豆腐 苹果 米饭 鱼汤 烤鸭 包子 西瓜 年糕 蛋糕 玉米",
        "dumplings noodles tofu apples rice soup duck buns melon ricecake cake corn",
    ),
    "pet": _pairs(
        "兔子 鹦鹉 乌龟 黄狗 花猫 金鱼 山羊 白鹅 松鼠 蜜蜂 骆驼 蟋蟀",
        "rabbit parrot turtle dog cat goldfish goat goose squirrel bee camel cricket",
    ),
}

STATEMENTS: dict[str, dict[str, tuple[str, ...]]] = {
    "zh": {
        "city": ("{n}住在{v}。", "{n}的家在{v}。", "{n}是{v}人。", "{n}出生在{v}。"),
        "job": ("{n}的职业是{v}。", "{n}是一名{v}。", "{n}的工作是{v}。", "{n}当了{v}。"),
        "food": ("{n}最爱吃{v}。", "{n}喜欢吃{v}。", "{n}常常吃{v}。", "{n}最喜欢的食物是{v}。"),
        "pet": ("{n}养了{v}。", "{n}的宠物是{v}。", "{n}家里有{v}。", "{n}养着{v}。"),
    },
    "en": {
        "city": ("{n} lives in {v}.", "{n} comes from {v}.", "The home of {n} is {v}.", "{n} was born in {v}."),
        "job": ("{n} is a {v}.", "{n} works as a {v}.", "The job of {n} is {v}."),
        "food": ("{n} likes to eat {v}.", "{n} often eats {v}.", "The food {n} likes best is {v}."),
        "pet": ("{n} keeps a {v}.", "{n} has a {v} at home.", "The pet of {n} is a {v}."),
    },
}

QUESTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "zh": {
        "city": ("{n}住在哪里？", "{n}的家在哪里？", "{n}是哪里人？"),
        "job": ("{n}的职业是什么？", "{n}做什么工作？", "{n}是做什么的？"),
        "food": ("{n}最爱吃什么？", "{n}喜欢吃什么？", "{n}常常吃什么？"),
        "pet": ("{n}养了什么？", "{n}的宠物是什么？", "{n}家里有什么？"),
    },
    "en": {
        "city": ("Where does {n} live?", "Where is the home of {n}?"),
        "job": ("What is the job of {n}?", "What does {n} do?"),
        "food": ("What does {n} like to eat?", "What does {n} eat?"),
        "pet": ("What pet does {n} keep?", "What is the pet of {n}?"),
    },
}

NEWS_OPENINGS = ("本报讯：", "据说，", "大家都知道，", "资料显示，", "本报讯：据说")
REPOSTS = ("（转载）", "（网友转发）", "（来源：网络）")
QUESTION_OPENINGS = ("", "请问，", "谁知道，")
ANSWER_OPENINGS = ("", "我记得", "应该是这样，")

#: The two ways to ask that instruction tuning teaches and that the evaluation uses. The final line break is the separator that
#: the data room's adapters put between prompt and answer.
ALONE = "问题：{question}\n答案：\n"
LISTED = "问题：{question}\n选项：A.{A}B.{B}C.{C}D.{D}\n答案：\n"
#: The options without the question: a control.
OPTIONS_ONLY = "选项：A.{A}B.{B}C.{C}D.{D}\n答案：\n"
READING = "阅读：{context}\n" + LISTED
#: The same in English, for instructions that are asked in English; with a `{context}` before it where there is one.
ALONE_ENGLISH = "Question: {question}\nAnswer:\n"
LISTED_ENGLISH = "Question: {question}\nOptions: A.{A} B.{B} C.{C} D.{D}\nAnswer:\n"
READING_ENGLISH = "Read: {context}\n" + LISTED_ENGLISH
