"""Write constraints.txt: the exact versions, installed here, of everything that pandallm and its extras need.

python tools/lock.py            # after installing pandallm[dev,gguf] the way you want it locked
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("dev", "gguf")


def closure() -> dict[str, str]:
    """name -> version of every distribution that is reached from pandallm and EXTRAS on this platform."""
    found: dict[str, str] = {}
    todo = [(Requirement("pandallm"), EXTRAS)]
    while todo:
        requirement, extras = todo.pop()
        try:
            package = distribution(requirement.name)
        except PackageNotFoundError:
            sys.exit(f"{requirement.name} is not installed; install pandallm[{','.join(EXTRAS)}] first.")
        name = re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower()
        if name in found and not extras:
            continue
        # A CPU build of torch calls itself 2.13.0+cpu; the lock must also fit machines with an accelerator.
        found[name] = package.version.split("+")[0]
        for text in package.requires or []:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in (*extras, "")):
                todo.append((needed, tuple(needed.extras)))
    found.pop("pandallm")
    return found


if __name__ == "__main__":
    lines = [f"{name}=={version}\n" for name, version in sorted(closure().items())]
    head = "# The lock: exact versions under which the tests pass. Written by tools/lock.py; used as `pip install -c constraints.txt`.\n"
    (ROOT / "constraints.txt").write_text(head + "".join(lines))
    print(f"constraints.txt: {len(lines)} packages")
