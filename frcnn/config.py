"""The Hydra door: the schema, the defaults that a spec replaces, and the way out to plain settings."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml as pyyaml
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from frcnn.bridge import yaml
from frcnn.bridge.document import KINDS, Document
from frcnn.entry.overrides import OWNED, fields_on
from frcnn.errors import FrcnnError, SpecError
from frcnn.paths import conf_dir
from frcnn.spec.check import check
from frcnn.spec.experiment import Experiment
from frcnn.spec.fields import REQUIRED, Message, build, settings_of
from frcnn.spec.model import ModelConfig
from frcnn.spec.run import App

Tree = dict[str, Any]

WRONG_TYPES = {
    r"Value '(.*)' of type '\w+' could not be converted to Integer": KINDS[int],
    r"Value '(.*)' of type '\w+' could not be converted to Float": KINDS[float],
    r"Value '(.*)' is not a valid bool": KINDS[bool],
    r"Invalid value assigned: \w+ is not a ListConfig": "a list, such as [0,1]",
}
"""What OmegaConf says of values of another type, some with the value, and what may stand there."""


def register() -> None:
    """Put the schema and the resolvers where Hydra finds them."""
    store = ConfigStore.instance()
    store.store(name="schema", node=App, provider="frcnn")
    Plugins.instance()  # by now plugins have stored settings of their own, which those in conf/ replace
    for file in (conf_dir() / "hydra").glob("*/*.yaml"):
        store.repo["hydra"][file.parent.name].pop(file.name, None)
    OmegaConf.register_new_resolver("run_name", _run_name, replace=True)
    OmegaConf.register_new_resolver("optimizer_lr", _optimizer_lr, replace=True)
    OmegaConf.register_new_resolver("anchor_scales", _anchor_scales, replace=True)
    OmegaConf.register_new_resolver("direction", _direction, replace=True)


def derive(command: str, trees: Mapping[str, Tree], sections: Sequence[str] = ()) -> str:
    """Make a primary config from one in conf/.

    Args:
        command: name of the primary config in conf/.
        trees: specs, as choices of a group `spec`; where there are any, the groups of TAO's tree are
            empty unless they are named.
        sections: optional sections to create with their defaults, so that single values can be set.

    Returns:
        The name of the primary config.
    """
    if not trees and not sections:
        return command
    store = ConfigStore.instance()
    defaults = pyyaml.safe_load((conf_dir() / f"{command}.yaml").read_text(encoding="utf-8"))["defaults"]
    if trees:
        for name, tree in trees.items():
            store.store(group="spec", name=name, node=tree, package="_global_", provider="frcnn")
        owned = [group for item in defaults if isinstance(item, dict) for group in item if group in OWNED]
        defaults = [item for item in defaults if not (isinstance(item, dict) and set(item) & set(owned))]
        # Behind trainer, logger and run, which a run's config.yaml sets; before the groups named over it.
        behind = defaults.index("_self_")
        defaults[behind:behind] = [{"spec": "???"}, *({group: None} for group in owned)]
    created: Tree = {}
    for path in sections:
        *parents, last = path.split(".")
        place = created
        for parent in parents:
            place = place.setdefault(parent, {})
        field = fields_on(path)[-1][1]
        place[last] = {inner.name: inner.default for inner in settings_of(field.kind)}
    store.store(name="sections", node=created, provider="frcnn")
    name = f"{command}_derived"
    store.store(name=name, node={"defaults": [*defaults, "sections"]}, provider="frcnn")
    return name


def spec_tree(document: Document, groups: Mapping[str, Sequence[str]]) -> Tree:
    """A spec's settings for Hydra, without what the named groups replace.

    Args:
        document: the spec; its key is left out.
        groups: groups named on the command line with their choices.
    """
    tree = yaml.tree(document.spec)
    tree.pop("enc_key", None)
    _drop(tree, ["training_config", "visualizer", "wandb_config", "key"])
    for group in (name for name in groups if name != "training"):
        for path in OWNED[group]:
            _drop(tree, path.split("."))
    if "training" in groups:  # its optimizer and schedule are groups of their own
        training = tree.get("training_config", {})
        kept = {name: training[name] for name in ("optimizer", "learning_rate") if name in training}
        tree["training_config"] = kept
    for group in ("model", "backbone"):
        for choice in groups.get(group, ()):
            file = conf_dir() / group / f"{choice}.yaml"
            if not file.is_file():
                message = "takes plain choices over a spec"
                raise SpecError(message, where="command line", found=f"{group}={choice}")
            listed = pyyaml.safe_load(file.read_text(encoding="utf-8"))
            _drop_listed(tree.get("model_config", {}), listed, ModelConfig)
    if "model" in groups:  # size and channels follow the model that is named
        for name in ("output_image_width", "output_image_height", "output_image_channel"):
            _drop(tree, ["augmentation_config", "preprocessing", name])
    visualizer = document.spec.training_config.visualizer
    logger = {
        "csv": True,
        "tensorboard": visualizer is not None and visualizer.enabled,
        "wandb": visualizer is not None and visualizer.wandb_config is not None,
    }
    tree |= {
        name: values for name, values in ({"logger": logger} | document.extra).items() if name not in groups
    }
    source = Path(document.source)
    once = ("resume", "overwrite", "debug")  # what concerned one start is not restored
    restored = {name: value for name, value in tree.get("run", {}).items() if name not in once}
    tree["run"] = {"source": re.sub(r"[^\w.-]", "_", source.stem), **restored}
    tree["run"].setdefault("natural", _natural(document.spec))
    tree["run"].setdefault("spec_folder", str(source.resolve().parent))
    return tree


def resolve(
    config: DictConfig, *, locate: Callable[[str], str] = str, problems: list[FrcnnError] | None = None
) -> App:
    """The settings of a composed configuration, checked.

    Args:
        config: what Hydra composed.
        locate: turns a dotted path into the place to show in messages.
        problems: takes what is wrong with single settings; by default it is raised.

    Raises:
        SpecError: everything that is wrong with the settings.
    """
    try:
        tree = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise readable(error) from None
    app: App = build(App, tree)  # type: ignore[arg-type]
    try:
        check(app, locate=locate, tao_quirks=app.run.tao_quirks)
    except SpecError as error:
        if problems is None:
            raise
        problems += error.problems or [error]
    return app


def readable(error: BaseException) -> SpecError:
    """An error of Hydra or OmegaConf in our words."""
    while isinstance(error.__cause__, OmegaConfBaseException | HydraException):
        error = error.__cause__
    # OmegaConf writes the items of lists a[0], the rest of the world here a.0.
    key = re.sub(r"\[(\w+)\]", r".\1", getattr(error, "full_key", None) or "")
    message = str(error).strip().split("\n")[0]
    for pattern, allowed in WRONG_TYPES.items():
        if wrong := re.match(pattern, message):
            found = next(iter(wrong.groups()), None)
            return SpecError("a value of the wrong type", where=key, found=found, allowed=allowed)
    hint = None
    if re.search("not in struct|does not exist", message):
        hint = "a new entry of a map is written +KEY.NAME=VALUE"
    elif re.search(r"no viable alternative|mismatched input|extraneous|token recognition", message):
        hint = "a value with special characters wants quotes: 'KEY=\"VALUE\"'"
    return SpecError(message, where=key or "settings", hint=hint)


def _drop(tree: Tree, path: list[str]) -> None:
    for name in path[:-1]:
        tree = tree.get(name) or {}
    tree.pop(path[-1], None)


def _drop_listed(tree: Tree, listed: Tree, message: type[Message]) -> None:
    fields = {field.name: field for field in settings_of(message)}
    for name, value in listed.items():
        field = fields[name]
        for other in fields.values():
            if field.oneof and other.oneof == field.oneof and other is not field:
                tree.pop(other.name, None)
        if field.is_message and isinstance(value, dict) and isinstance(tree.get(name), dict):
            _drop_listed(tree[name], value, field.kind)
        else:
            tree.pop(name, None)


def _natural(spec: Experiment) -> Tree:
    """A spec's own size and scales, for a `model` group that is named over it."""
    model, size = spec.model_config, spec.model_config.input_image_config.size_height_width
    values = {
        "height": size.height if size else 0,
        "width": size.width if size else 0,
        "scale": list(model.anchor_box_config.scale),
        "pool_size": model.roi_pooling_config.pool_size,
        "roi_mini_batch": model.roi_mini_batch,
        "proposals": spec.evaluation_config.rpn_nms_max_boxes,
    }
    return {name: value for name, value in values.items() if value != REQUIRED}


def _run_name(*, _root_: Any) -> str:
    # A sweep over specs has no arch of its own; its folder is called sweep.
    arch = "sweep" if OmegaConf.is_missing(_root_.model_config, "arch") else str(_root_.model_config.arch)
    return "-".join(filter(None, [arch.replace(":", "_"), _root_.run.source]))


def _optimizer_lr(factor: float = 1.0, *, _root_: Any) -> float:
    optimizer = _root_.training_config.optimizer
    rates = [member.lr for member in (optimizer.adam, optimizer.sgd, optimizer.rmsprop) if member is not None]
    if not rates or not rates[0]:
        raise ValueError("the schedule's base_lr follows the optimizer's lr, which is not set")
    return float(rates[0]) * factor


def _anchor_scales(factor: float, *, _root_: Any) -> str:
    return "[" + ",".join(f"{round(scale * factor, 1):g}" for scale in _root_.run.natural.scale) + "]"


def _direction(metric: str) -> str:
    return "minimize" if "loss" in metric else "maximize"
