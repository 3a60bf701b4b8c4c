"""Personal data: found by its form, checked by its check digits where it has any, and put out of sight."""

import ipaddress
import re
from collections.abc import Callable
from datetime import date

from pandallm.data.clean_spec import PERSONAL_DATA, PersonalData, PiiStep
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
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])"
)
_ID_CARD = re.compile(r"(?<![\dA-Za-z])[1-9]\d{5}(?:18|19|20)\d{2}[01]\d[0-3]\d\d{3}[\dXx](?![\dA-Za-z])")
_BANK_CARD = re.compile(r"(?<![\d.])[3-6]\d{3}(?:[ -]?\d{4}){3}(?:[ -]?\d{1,3})?(?![\d.])")
# Chinese mobile numbers, landlines with their area code, service numbers, American ones, and any with a country code.
_PHONE = re.compile(
    r"(?<![\d.+/=-])(?:"
    r"(?:(?:\+|00)86[ -]?)?1[3-9]\d[ -]?\d{4}[ -]?\d{4}"
    r"|(?:(?:\+|00)86[ -]?)?(?:\(0?\d{2,3}\) ?|0\d{2,3}[ \-－])[2-9]\d{2,3}[ -]?\d{4}(?:-\d{1,5})?"
    r"|[48]00[ -]?\d{3}[ -]?\d{4}"
    r"|(?:\+1[ -]?)?(?:\([2-9]\d{2}\) |[2-9]\d{2}-)[2-9]\d{2}-\d{4}"
    r"|\+[1-9]\d{0,2}(?:[ -]\d{2,5}){2,5}"
    r")(?![\d/=]|\.\d|-\d)"
    r"|(?:(?<=（0\d\d）)|(?<=（0\d\d\d）))[2-9]\d{6,7}(?!\d)"
)
_IPV4 = re.compile(r"(?<![\d.\w])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{1,4}:){2,7}(?::?[0-9A-Fa-f]{1,4}){1,7}(?![\w:])")
# A name stands alone or at the beginning of a word; `@Override` alone on its line is a program's.
_NAME = re.compile(r"(?<![\w@＠./<])[@＠](?=\w)(?![A-Za-z_.]+(?:\(|[ \t]*(?:\n|$)))[\w\-]{1,30}")
_DIGITS = re.compile(r"\d{3}|\d\.\d|[0-9A-Fa-f]:[0-9A-Fa-f:]")

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


def _always(text: str) -> bool:
    return True


_RULES: dict[PersonalData, tuple[tuple[re.Pattern[str], Callable[[str], bool]], ...]] = {
    "mail": ((_MAIL, _always),),
    "id_card": ((_ID_CARD, is_id_card),),
    "bank_card": ((_BANK_CARD, is_bank_card),),
    "phone": ((_PHONE, _always),),
    "ip": ((_IPV4, is_public_ip), (_IPV6, is_public_ip)),
    "name": ((_NAME, _always),),
}
_WITH_AT = ("mail", "name")


def make_masker(step: PiiStep) -> Callable[[str, dict[str, int]], str]:
    """A function of a text and counts per kind (added to) that gives the text with placeholders."""
    placeholders = PLACEHOLDERS | step.placeholders
    # Longest first: an ID card holds what looks like a telephone number, a mail address what looks like a name.
    rules = [(kind, *rule) for kind in PERSONAL_DATA if kind in step.mask for rule in _RULES[kind]]

    def mask(text: str, counts: dict[str, int]) -> str:
        has_at = "@" in text or "＠" in text
        has_digits = _DIGITS.search(text) is not None
        if not has_at and not has_digits:
            return text
        for kind, pattern, check in rules:
            if not (has_at if kind in _WITH_AT else has_digits):
                continue

            def put(found: re.Match[str], kind: PersonalData = kind, check: Callable[[str], bool] = check) -> str:
                if not check(found.group()):
                    return found.group()
                counts[kind] = counts.get(kind, 0) + 1
                return placeholders[kind]

            text = pattern.sub(put, text)
        return text

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
