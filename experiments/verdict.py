from dataclasses import dataclass
@dataclass(frozen=True)
class Verdict:
    pass
