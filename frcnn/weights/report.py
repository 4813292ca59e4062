"""What became of each layer when weights were loaded."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from frcnn.report.tables import render, rows_table

Status = Literal["Yes", "No", "None"]


class LayerStatus(NamedTuple):
    """A line of the table."""

    name: str
    kind: str  # class of the module
    status: Status  # loaded; in the source with other shapes; not in the source
    note: str  # why not


@dataclass(frozen=True)
class LoadReport:
    """TAO's table of pretrained weights: Yes, No or None for each layer.

    Attributes:
        source: where the weights are from.
        rows: one per layer of the network.
        unused: layers of the source that the network does not have.
    """

    source: str
    rows: tuple[LayerStatus, ...]
    unused: tuple[str, ...]

    @property
    def loaded(self) -> list[str]:
        """Names of the layers that were loaded."""
        return [row.name for row in self.rows if row.status == "Yes"]

    def to_dict(self) -> dict[str, Any]:
        """For results.json and checkpoints: plain dicts, lists and strings."""
        rows = [row._asdict() for row in self.rows]
        return {**asdict(self), "rows": rows, "unused": list(self.unused)}

    def table(self) -> str:
        """The table as text."""
        rows = [
            {"layer": f"{row.name}({row.kind})", "pretrained weights": row.status, "why": row.note or None}
            for row in self.rows
        ]
        if not any(row.note for row in self.rows):
            rows = [{key: value for key, value in row.items() if key != "why"} for row in rows]
        title = f"{self.source}: {len(self.loaded)} of {len(self.rows)} layers loaded"
        if self.unused:
            shown = ", ".join(self.unused[:8]) + (", ..." if len(self.unused) > 8 else "")
            title += f"; not used: {shown}"
        return render(rows_table(rows, title=title))
