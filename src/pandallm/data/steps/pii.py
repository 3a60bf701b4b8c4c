"""Personal data: found by its form, checked by its check digits where it has any, and put out of sight."""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial

from pandallm.data.clean_spec import PersonalData, PiiStep
from pandallm.data.steps.document import Document, Step

PLACEHOLDERS: dict[PersonalData, str] = {
    "mail": "<mail>",
    "id_card": "<id>",
    "bank_card": "<card>",
    "phone": "<phone>",
    "ip": "<ip>",
    "name": "@<name>",
}

_MAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z])"
)
_ID_CARD = re.compile(r"(?<![\dA-Za-z])[1-9]\d{5}(?:18|19|20)\d{2}[01]\d[0-3]\d\d{3}[\dXx](?![\dA-Za-z])")
_BANK_CARD = re.compile(r"(?<![\d.])[3-6]\d{3}(?:[ -]?\d{4}){3}(?:[ -]?\d{1,3})?(?![\d.])")
# Chinese mobile numbers, landlines with their area code, service numbers, American ones, and any with a country code.
_PHONE = re.compile(
    r"(?<![\d.+/=-])(?:"
    r"(?:(?:\+|00)86[ -]?)?[1１][3-9３-９]\d[ -]?\d{4}[ -]?\d{4}"
    r"|(?:(?:\+|00)86[ -]?)?(?:\(0?\d{2,3}\) ?|0\d{2,3}[ \-－])[2-9]\d{2,3}[ -]?\d{4}(?:-\d{1,5})?"
    r"|[48]00[ -]?\d{3}[ -]?\d{4}"
    r"|(?:\+1[ -]?)?(?:\([2-9]\d{2}\) |[2-9]\d{2}-)[2-9]\d{2}-\d{4}"
    r"|\+[1-9]\d{0,2}(?:[ -]\d{2,5}){2,5}"
    r")(?![\d/=]|\.\d|-\d)"
    r"|(?:(?<=（0\d\d）)|(?<=（0\d\d\d）))[2-9]\d{6,7}(?!\d)"
)
_IPV4 = re.compile(r"(?<![0-9A-Za-z_.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9A-Za-z_]|\.[0-9])")
_IPV6 = re.compile(r"(?<![0-9A-Za-z_:.])(?:[0-9A-Fa-f]{1,4}:){2,7}(?::?[0-9A-Fa-f]{1,4}){1,7}(?![0-9A-Za-z_:])")
# As long as a name on Weibo may be: 30 characters, of which a Chinese one is two. A line of its own or a call is a
# program's (`@Override`, `@app.route("/")`).
_NAME = re.compile(
    r"(?P<code>^[ \t]*@[A-Za-z_][A-Za-z0-9_.]*(?:\(.*)?[ \t]*$)"
    r"|(?<![A-Za-z0-9_@＠./<])[@＠](?=\w)(?![A-Za-z0-9_.]+\()[\w-]{1,15}[A-Za-z0-9_-]{0,15}",
    re.MULTILINE,
)
# What must be there before the rules are tried; each begins with one class of characters, which is searched quickly.
_LONG_NUMBER = re.compile(r"[0-9０-９][\d \-－().]{5,}[\dXx]")
_DOTTED = re.compile(r"[0-9]\.\d{1,3}\.\d")
_COLONS = re.compile(r"[0-9A-Fa-f]:[0-9A-Fa-f]{0,4}:")
_HAS_AT = re.compile("[@＠]")

#: Ends of file names with an @ in them (`icon@2x.png`).
_NO_DOMAINS = frozenset(
    ("png", "jpg", "jpeg", "gif", "svg", "webp", "bmp", "ico", "js", "css", "html", "htm", "json", "xml", "mp3", "mp4")
)
#: Words of programming languages that are written with an @.
_NO_NAMES = re.compile(
    r"author|charset|class|else|end|extends|font-face|if|implementation|import|include|interface|"
    r"keyframes|media|mixin|namespace|override|param|private|property|protocol|public|return|returns|"
    r"see|selector|since|supports|synthesize|throws|type|use|when",
    re.IGNORECASE,
)

#: ISO 7064 MOD 11-2, as GB 11643-1999 uses it: weights of the first 17 digits and the check character for each rest.
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECKS = "10X98765432"


def is_id_card(text: str) -> bool:
    """Whether 18 characters are the number of a Chinese resident: a day that exists and the check character."""
    try:
        date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    rest = sum(w * int(d) for w, d in zip(_WEIGHTS, text, strict=False)) % 11
    return text[17].upper() == _CHECKS[rest] or (text[17].isdecimal() and str(int(text[17])) == _CHECKS[rest])


def is_bank_card(text: str) -> bool:
    """Whether 16 to 19 digits, perhaps in groups, pass Luhn's check (ISO/IEC 7812-1)."""
    digits = [int(c) for c in text if c.isdecimal()]
    doubled = [2 * d - 9 if 2 * d > 9 else 2 * d for d in digits[-2::-2]]
    return 16 <= len(digits) <= 19 and len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_public_ip(text: str) -> bool:
    """Whether an address belongs to somebody: private and reserved ones, versions and numbered headings do not.

    `3.1.2.1` is more often a heading or a version than an address, so IPv4 needs two numbers of two digits.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if address.version == 4 and sum(len(part) > 1 for part in text.split(".")) < 2:
        return False
    return address.is_global


def is_mail(text: str) -> bool:
    """Whether the last part of an address is no ending of a file."""
    return text.rpartition(".")[2].lower() not in _NO_DOMAINS


def is_name(text: str) -> bool:
    """Whether `@word` is no word of a programming language."""
    return _NO_NAMES.fullmatch(text, 1) is None


def is_phone(text: str) -> bool:
    """The form says all there is: no check digits."""
    return True


@dataclass(frozen=True)
class _Rule:
    kind: PersonalData
    gate: re.Pattern[str]
    pattern: re.Pattern[str]
    check: Callable[[str], bool]


# An ID card holds what looks like a telephone number, a mail address what looks like a name: the longer ones go first.
_RULES = (
    _Rule("mail", _HAS_AT, _MAIL, is_mail),
    _Rule("id_card", _LONG_NUMBER, _ID_CARD, is_id_card),
    _Rule("bank_card", _LONG_NUMBER, _BANK_CARD, is_bank_card),
    _Rule("phone", _LONG_NUMBER, _PHONE, is_phone),
    _Rule("ip", _DOTTED, _IPV4, is_public_ip),
    _Rule("ip", _COLONS, _IPV6, is_public_ip),
    _Rule("name", _HAS_AT, _NAME, is_name),
)


#: What a number's pattern looks at before and after its digits is shorter.
_CONTEXT = 12


def _sub_near(pattern: re.Pattern[str], put: Callable[[re.Match[str]], str], text: str) -> str:
    """`pattern.sub(put, text)` in the neighbourhood of long numbers only: a fifth of the time."""
    parts: list[str] = []
    done = start = stop = 0
    for found in _LONG_NUMBER.finditer(text):
        if found.start() - _CONTEXT > stop:
            parts += text[done:start], pattern.sub(put, text[start:stop])
            done, start = stop, found.start() - _CONTEXT
        stop = found.end() + _CONTEXT
    return "".join([*parts, text[done:start], pattern.sub(put, text[start:stop]), text[stop:]])


def make_masker(step: PiiStep) -> Callable[[str, dict[str, int]], str]:
    """A function of a text and counts per kind (added to) that gives the text with placeholders."""
    placeholders = PLACEHOLDERS | step.placeholders
    rules = [rule for rule in _RULES if rule.kind in step.mask]
    gates = {rule.gate for rule in rules}
    names = placeholders["name"]  # may look like a name itself

    def mask(text: str, counts: dict[str, int]) -> str:
        # Again while something is found: a placeholder may end what hid the number beside it.
        while (opened := {gate for gate in gates if gate.search(text) is not None}) and (
            new := mask_once(text, opened, counts)
        ) != text:
            text = new
        return text

    def mask_once(text: str, opened: set[re.Pattern[str]], counts: dict[str, int]) -> str:
        for rule in rules:
            if rule.gate is _LONG_NUMBER and rule.gate in opened:
                text = _sub_near(rule.pattern, partial(put, rule, counts), text)
            elif rule.gate in opened:
                text = rule.pattern.sub(partial(put, rule, counts), text)
        return text

    def put(rule: _Rule, counts: dict[str, int], found: re.Match[str]) -> str:
        text = found.group()
        if found.lastgroup == "code" or (names and text.startswith(names)) or not rule.check(text):
            return text
        counts[rule.kind] = counts.get(rule.kind, 0) + 1
        return placeholders[rule.kind]

    return mask


def make_pii(step: PiiStep, where: str) -> Step:
    """Masks turn by turn; drops nothing."""
    mask = make_masker(step)

    def run(document: Document) -> str | None:
        counts = document.masked or {}
        document.change(lambda text: mask(text, counts))
        if counts:
            document.masked = counts
        return None

    return run
