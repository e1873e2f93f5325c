"""Compares two transcripts of one tour, and compares the result with the table of known differences.

A difference without a row is an error. A row that matches no difference is an error too.
"""

import json
from dataclasses import dataclass
from fnmatch import fnmatchcase

from normalise import identity

ABSENT = "(absent)"


@dataclass(frozen=True, order=True)
class Difference:
    """`path` names a field of the answer (`NetworkInterfaces[].Status`), or `outcome`, `code`, `message`."""

    step: str
    path: str
    ours: str
    moto: str


def show(value):
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def outcome(entry):
    return entry.get("code") or entry["outcome"]


def steps(ours, moto):
    """The differences of two transcripts (lists of entries, see tour.py)."""
    assert [e["step"] for e in ours] == [e["step"] for e in moto], "both transcripts are of one tour"
    for a, b in zip(ours, moto):
        yield from step(a, b)


def step(a, b):
    name = a["step"]
    if not {a["outcome"], b["outcome"]} & {"answered", "refused"}:
        yield Difference(name, "proves nothing", *(show(e.get("message", e["outcome"])) for e in (a, b)))
    elif outcome(a) != outcome(b):
        yield Difference(name, "outcome", outcome(a), outcome(b))
    elif a["exit"] != b["exit"]:
        yield Difference(name, "exit", str(a["exit"]), str(b["exit"]))
    elif a.get("message") != b.get("message"):
        yield Difference(name, "message", show(a.get("message", ABSENT)), show(b.get("message", ABSENT)))
    else:
        yield from values(name, "", a.get("answer"), b.get("answer"))


def values(name, path, a, b):
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            yield from values(name, f"{path}.{key}".lstrip("."), a.get(key, ABSENT), b.get(key, ABSENT))
    elif all(isinstance(side, list) and all(isinstance(m, dict) for m in side) for side in (a, b)):
        ours, moto = by_identity(a), by_identity(b)
        for key in sorted({*ours, *moto}):
            yield from members(name, f"{path}[]", key, ours, moto)
    elif json.dumps(a) != json.dumps(b):  # in Python, 1 == True
        yield Difference(name, path, show(a), show(b))


def by_identity(side):
    """List members by their identity. Members with the same identity are numbered."""
    found = {}
    for member in side:
        key = identity(member)
        while key in found:
            key += " again"
        found[key] = member
    return found


def members(name, path, key, ours, moto):
    """A member that only one side has is shown by its identity; its fields would add nothing."""
    if key in ours and key in moto:
        yield from values(name, path, ours[key], moto[key])
    else:
        yield Difference(name, path, key if key in ours else ABSENT, key if key in moto else ABSENT)


class Row:
    """One row of differences.toml. `step`, `path`, `ours` and `moto` are patterns or lists of them; default: any."""

    def __init__(self, fields):
        self.steps, self.paths = patterns(fields["step"]), patterns(fields["path"])
        self.ours, self.moto = patterns(fields.get("ours", "*")), patterns(fields.get("moto", "*"))
        self.right, self.source, self.what = fields["right"], fields["source"], fields["what"]
        if self.right not in ("vpc-sim", "moto", "both", "neither"):
            raise ValueError(f"{self.what}: right = {self.right!r}")
        self.unused = {*(("step", s) for s in self.steps), *(("path", p) for p in self.paths)}

    def explains(self, d):
        """Whether this row matches `d`; if so, its patterns are marked as used."""
        hits = [
            {p for p in mine if fnmatchcase(text, p.replace("[", "[[]"))}
            for mine, text in ((self.steps, d.step), (self.paths, d.path), (self.ours, d.ours), (self.moto, d.moto))
        ]
        if not all(hits):
            return False
        self.unused -= {*(("step", s) for s in hits[0]), *(("path", p) for p in hits[1])}
        return True


def patterns(field):
    return [field] if isinstance(field, str) else list(field)


def judge(differences, rows):
    """Error messages: unexplained differences, ambiguous rows, unused patterns."""
    wrong = []
    for d in differences:
        found = [r for r in rows if r.explains(d)]
        if not found:
            wrong.append(f"new difference at {d.step}, {d.path}:\n    vpc-sim: {d.ours}\n    moto:    {d.moto}")
        elif len(found) > 1:
            wrong.append(f"{d.step}, {d.path}: several rows: {'; '.join(r.what for r in found)}")
    for row in rows:
        wrong += [f"stale: {row.what}: no difference at {kind} {text!r}" for kind, text in sorted(row.unused)]
    return wrong
