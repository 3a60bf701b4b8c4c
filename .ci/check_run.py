"""Read the JSON object of `panda run --json` from stdin; fail unless the headline is complete, ordered and everything was reused."""

import json
import sys

result = json.load(sys.stdin)
headline = result["headline"]
names = ("base", "pretrain", "instruct")
scores = [headline[n] for n in names] + list(headline["controls"].values())
assert all(s["low"] <= s["accuracy"] <= s["high"] for s in scores), headline
assert headline["base"]["high"] < headline["pretrain"]["low"], headline
assert headline["pretrain"]["high"] < headline["instruct"]["low"], headline
assert len(headline["controls"]) >= 3, headline
assert result["delta"]["verified"] is True, result["delta"]
assert not result["made"], f"made again: {result['made']}"
assert result["seconds"] < 30, result["seconds"]
print(f"headline {[round(headline[n]['accuracy'], 3) for n in names]}, second run {result['seconds']} s, all reused")
