"""Imports point down, and heavy packages stay where they belong (docs/architecture.md)."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / "frcnn"

LEVELS = [
    {"errors"},
    {"spec", "ops"},
    {
        "bridge",
        "model",
        "data",
        "metrics",
        "checkpoint_io",
        "encryption",
        "safe_load",
        "paths",
        "folder",
        "status",
        "exits",
    },
    {
        "optim",
        "report.check",
        "report.tables",
        "report.colours",
        "report.draw",
        "report.plots",
        "report.conversion",
        "report.summary",
        "report.sweep",
        "report.parity",
        "report.pruning",
        "report.quantization",
        "report.html",
        "report.charts",
        "report.style",
        "report.page",
    },
    {"callbacks", "datamodule", "weights", "prune", "quantize", "deploy", "auto_batch", "sweep"},
    {"lit_module", "loggers", "report.training", "processes", "strategy", "trainer"},
    {"build"},
    {"results", "convert", "backend"},
    {"record", "dashboards", "predictor", "pruning", "quantization", "parity", "describe"},
    {"infer", "export", "detection_files", "start", "resume", "preview"},
    {"session", "import_weights", "build_engine", "reference", "check"},
    {"training"},
    {"run"},
    {"config", "entry"},
    {"cli", "__main__", "api"},
]

DOORS = {("spec", "bridge.convert")}
"""What a package offers its users and imports once somebody asks for it."""


def level(module):
    parts = module.split(".")
    for number, names in enumerate(LEVELS):
        if parts[0] in names or ".".join(parts[:2]) in names:
            return number
    return None


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules():
    for file in ROOT.rglob("*.py"):
        yield (
            file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"),
            file,
        )


def test_every_module_has_a_level():
    assert {name for name, _ in modules() if level(name) is None} <= {"__init__", "report"}


def test_imports_point_down():
    upward = [
        (name, target)
        for name, file in modules()
        for target in (item.removeprefix("frcnn.") for item in imports(file) if item.startswith("frcnn."))
        if (name, ".".join(target.split(".")[:2])) not in DOORS
        if level(name) is not None and level(target) is not None and level(target) > level(name)
    ]
    assert upward == []


def test_heavy_packages_stay_where_they_belong():
    settings = ("spec", "bridge", "entry", "cli", "errors", "paths", "config", "convert", "status", "sweep")
    below_config = (
        "spec",
        "bridge",
        "ops",
        "model",
        "data",
        "metrics",
        "weights",
        "build",
        "run",
        "callbacks",
    )
    strangers = {
        "torch": settings,
        "pytorch_lightning": (*settings, "ops", "model", "data", "metrics", "optim"),
        "hydra": below_config,
        "omegaconf": below_config,
    }
    wrong = [
        (name, package)
        for name, file in modules()
        for package, forbidden in strangers.items()
        if name.split(".")[0] in forbidden and any(item.split(".")[0] == package for item in imports(file))
    ]
    assert wrong == []
