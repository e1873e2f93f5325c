"""Renders differences.toml as a table between the markers in README.md, and checks that the table is up to date."""

BEGIN, END = "<!-- differences: written by run.py -->", "<!-- end of differences -->"


def cell(text):
    return " ".join(text.split()).replace("|", "\\|")


def shown(patterns):
    return "" if patterns == ["*"] else ", ".join(f"`{cell(p)}`" if p else "(nothing)" for p in patterns)


def table(rows):
    lines = ["| What | Steps | Fields | vpc-sim | moto | Right | Source |", "|---|---|---|---|---|---|---|"]
    for r in rows:
        steps = shown(r.steps) or "all"
        cells = [cell(r.what), steps, shown(r.paths), shown(r.ours), shown(r.moto), r.right, cell(r.source)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def check(readme, rows, write):
    """Errors in the table of `readme`; with `write`, replaces the table instead."""
    text = readme.read_text()
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    current = f"{head}{BEGIN}\n\n{table(rows)}\n\n{END}{tail}"
    if write:
        readme.write_text(current)
    return [] if write or text == current else [f"{readme.name} is out of date: run with --write"]
