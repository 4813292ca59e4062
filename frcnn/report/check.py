"""The screen of a check: a line for each section, what is wrong below it, the verdict at the end."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from frcnn.report.tables import rows_table

STYLES = {"-": "dim", "ok": "green", "warning": "yellow", "error": "bold red"}
VERDICTS = {
    "fine": ("this will train", "bold green"),
    "warnings": ("this will train, but look at the warnings", "bold yellow"),
    "errors": ("this will not train", "bold red"),
}
MOST_ROWS = 12
"""Rows of a table; the rest is counted, and all are in the JSON."""


def check_screen(result: Mapping[str, Any]) -> RenderableType:
    """What `check --json` prints, for people; marks are words as well as colours."""
    return Group(*_parts(result))


def _parts(result: Mapping[str, Any]) -> Iterator[RenderableType]:
    for name, content in result["sections"].items():
        problems = [problem for problem in result["problems"] if problem["section"] == name]
        levels = {problem["level"] for problem in problems}
        mark = next((level for level in ("error", "warning") if level in levels), "ok")
        mark = mark if content["looked_at"] or levels else "-"
        line = Table.grid(padding=(0, 1))
        line.add_column(width=8)
        line.add_column(width=16)
        line.add_row(Text(mark, STYLES[mark]), Text(name, "bold"), Text(content["summary"]))
        yield line
        for title, rows in content["rows"].items():
            shown = rows[:MOST_ROWS]
            more = f", the first {MOST_ROWS} of {len(rows)}" if len(rows) > MOST_ROWS else ""
            table = rows_table(shown, title=f"{title}{more}")
            table.box, table.header_style = None, "dim"
            yield Padding(table, (0, 0, 0, 10), expand=False)
        if proposed := content["facts"].get("proposed"):
            yield Text(f"  {proposed['override']}", overflow="ignore", no_wrap=True)
        for problem in problems:
            yield Padding(_problem(problem), (0, 0, 0, 10), expand=False)
    words, style = VERDICTS[result["verdict"]]
    counts = {
        level: sum(p["count"] for p in result["problems"] if p["level"] == level)
        for level in ("error", "warning")
    }
    found = ", ".join(f"{count} {level}{'s' * (count != 1)}" for level, count in counts.items() if count)
    yield Text(f"\n{words}" + (f" ({found})" if found else ""), style=style)


def _problem(problem: Mapping[str, Any]) -> Text:
    times = f" ({problem['count']} times)" if problem["count"] > 1 else ""
    text = Text.assemble((f"{problem['level']}: ", STYLES[problem["level"]]), problem["message"], times)
    first = problem["examples"][0]
    if problem["count"] == 1 and first["found"] and not (first["where"] or first["allowed"]):
        text.append(f": {first['found']}")
        return text.append(f"\n  try: {problem['hint']}" if problem["hint"] else "")
    for example in problem["examples"]:
        parts = [example["where"], example["found"] and f"found {example['found']}"]
        parts.append(example["allowed"] and f"allowed {example['allowed']}")
        if line := "; ".join(part for part in parts if part):
            text.append(f"\n  {line}", "dim")
    left = problem["count"] - len(problem["examples"])
    text.append(f"\n  and {left} more" if left else "", "dim")
    return text.append(f"\n  try: {problem['hint']}" if problem["hint"] else "")
