"""The figures of an attack, the faults among them, and the table of all attacks.

No bound depends on the speed of the machine: waits are compared with those of the same bystanders before the attack,
and a usual wait below `WAIT_FLOOR` counts as `WAIT_FLOOR`. Where bystanders have to be served promptly, a p99 above
`PROMPT` is a fault, unless it was of that order before the attack.
"""

import dataclasses

# Longest p99 of pings under attack, as a multiple of the median before it.
RATIO_MAX = 100
WAIT_FLOOR = 0.020
# Longest p99 of pings where it has to be prompt, and its multiple before the attack on a machine that is slower.
PROMPT = 0.050
PROMPT_RATIO_MAX = 10
# Bytes of memory that an attack may take while it lasts, and that may be left when it is over.
GROWTH_MAX = 64 << 20
LEFT_MAX = 32 << 20

MIB = 1 << 20


@dataclasses.dataclass
class Row:
    """An attack. `calm` and `attacked` are figures of bystanders, without the attack and under it."""

    name: str
    calm: dict
    attacked: dict
    memory_before: int
    memory_after: int = 0
    prompt: bool = False
    notes: list = dataclasses.field(default_factory=list)

    @property
    def memory_peak(self):
        return max(self.attacked["memory_peak"], self.memory_before)

    @property
    def is_returned(self):
        return self.memory_after <= self.memory_before + LEFT_MAX


def faults(row):
    """Returns a sentence for each fault, which begins with its kind."""
    found = []
    for kind, count in row.attacked["counted"].items():
        if count:
            found.append(f"{kind}: {count} times, as in {'; '.join(row.attacked['examples'][kind])}")
    usual = max(row.calm["p50"], WAIT_FLOOR)
    if row.attacked["p99"] > RATIO_MAX * usual:
        found.append(f"waits: p99 of a ping is {row.attacked['p99']:.3f} s, more than {RATIO_MAX} times {usual:.3f} s")
    promptly = max(PROMPT, PROMPT_RATIO_MAX * row.calm["p99"])
    if row.prompt and row.attacked["p99"] > promptly:
        found.append(f"waits: p99 of a ping is {row.attacked['p99']:.3f} s, more than {promptly:.3f} s")
    if not row.attacked["pings"]:
        found.append("waits: nobody could send a ping")
    grown = row.memory_peak - row.memory_before
    if grown > GROWTH_MAX:
        found.append(f"memory: grows by {grown / MIB:.0f} MiB, more than {GROWTH_MAX / MIB:.0f}")
    if not row.is_returned:
        found.append(f"memory: {(row.memory_after - row.memory_before) / MIB:.0f} MiB are left")
    return found + row.notes


def table(rows):
    """Returns the rows as Markdown. Pings are in milliseconds."""
    head = (
        "attack | calm p50 / p99 / max | attacked p50 / p99 / max | connect, publish, health: longest s | closed"
        " | refused | gaps | MiB grown | MiB kept | faults"
    )
    lines = [f"| {head} |", "|" + " --- |" * len(head.split(" | "))]
    for row in rows:
        pings = [
            " / ".join(f"{figures[name] * 1000:.1f}" for name in ("p50", "p99", "longest"))
            for figures in (row.calm, row.attacked)
        ]
        longest = [row.attacked["longest_of"].get(kind, 0) for kind in ("connects", "publishes", "health checks")]
        counts = [str(row.attacked["counted"][kind]) for kind in ("closed", "refused", "gaps")]
        memory = [f"{(size - row.memory_before) / MIB:.0f}" for size in (row.memory_peak, row.memory_after)]
        kinds = sorted({fault.split(":")[0] for fault in faults(row)})
        others = ", ".join(f"{seconds:.2f}" for seconds in longest)
        cells = [row.name, *pings, others, *counts, *memory, ", ".join(kinds) or "none"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
