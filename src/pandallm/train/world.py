"""Who trains: this process's rank among all of them, and its device."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class World:
    """Rank 0 writes files and speaks."""

    device: Any  # torch.device
    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        return self.rank == 0
