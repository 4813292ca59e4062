"""The generated page docs/spec-reference.md: `python -m frcnn.spec.reference > docs/spec-reference.md`."""

import sys

from frcnn.spec.dataset_export import DatasetExportConfig
from frcnn.spec.experiment import Experiment
from frcnn.spec.fields import Setting, messages_below, settings_of
from frcnn.spec.run import Export, Logger, Natural, Prune, Quantize, Run, Trainer

HEAD = """# Settings

Every block and field of a TAO FasterRCNN spec, as `frcnn` reads it. Generated from `frcnn/spec` by
`python -m frcnn.spec.reference`; do not edit. Numbers are TAO's protobuf field numbers.
A field marked "no effect" is accepted, kept and named once in the log.
DatasetExportConfig and the blocks behind it make a dataset_convert spec, for scripts/convert_dataset.py.
The last blocks, Run, Natural, Trainer, Logger, Prune, Quantize and Export, hold what TAO has no word for.
"""


def page() -> str:
    """The page as Markdown."""
    parts = [HEAD]
    roots = (*messages_below(Experiment), *messages_below(DatasetExportConfig))
    for message in (*roots, Run, Natural, Trainer, Logger, Prune, Quantize, Export):
        parts += [f"\n## {message.__name__}\n", f"{(message.__doc__ or '').strip()}\n"]
        parts += ["| # | field | type | default | allowed | meaning |", "|---|---|---|---|---|---|"]
        parts += [_row(field) for field in settings_of(message)]
    return "\n".join(parts) + "\n"


def _row(field: Setting) -> str:
    kind = field.kind.__name__
    kind = {"list": f"list of {kind}", "map": f"map of {kind}"}.get(field.shape, kind)
    doc = field.doc + (f" (one of {field.oneof})" if field.oneof else "")
    doc += f"; 0 means {field.zero_means:g}" if field.zero_means is not None else ""
    doc += f"; **no effect**: {field.inert}" if field.inert else ""
    cells = [field.number or "", f"`{field.name}`", kind, _default(field), _allowed(field), doc]
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _default(field: Setting) -> str:
    if field.required or field.needed or field.keys:
        return "required"
    if field.is_message or field.default is None or field.default in ([], {}, ""):
        return ""
    return field.default.name if field.is_enum else f"{field.default}"


def _allowed(field: Setting) -> str:
    if field.is_enum:
        return ", ".join(member.name for member in field.kind)  # type: ignore[attr-defined]
    keys = f"keys {', '.join(field.keys)}; " if field.keys else ""
    return keys + (field.rule.allowed.replace(" or ", ", ") if field.rule else "")


if __name__ == "__main__":
    sys.stdout.write(page())
