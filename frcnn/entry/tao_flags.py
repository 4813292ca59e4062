"""The original's command-line flags, as settings."""

from collections.abc import Mapping, Sequence

from frcnn.errors import SpecError

_EXPORT: Mapping[str, str] = {
    **dict.fromkeys(("-m", "--model"), "model_path"),
    **dict.fromkeys(("-k", "--key", "--enc_key"), "enc_key"),
    **dict.fromkeys(("-e", "--experiment_spec", "--experiment_spec_file"), "spec"),
    **dict.fromkeys(("-o", "--output_file"), "export.output_file"),
    "--results_dir": "hydra.run.dir",
    "--target_opset": "export.opset",
    "--static_batch_size": "export.batch_size",
    "--batch_size": "export.cal_batch_size",
    **{
        f"--{name}": f"export.{name}"
        for name in (
            *("data_type", "batches", "cal_cache_file", "cal_data_file", "cal_image_dir", "cal_json_file"),
            *("engine_file", "max_workspace_size", "min_batch_size", "opt_batch_size", "max_batch_size"),
        )
    },
}
_SWITCHES: Mapping[str, str] = {
    "--force_ptq": "export.force_ptq=true",
    **dict.fromkeys(("-s", "--strict_type_constraints"), "export.strict_type_constraints=true"),
    **dict.fromkeys(("-v", "--verbose"), "verbose=true"),
    "--gen_ds_config": "",  # always
}
_DROPPED = ("--onnx_route",)
"""Flags with a value that means nothing here."""


def translated(command: str, argv: Sequence[str]) -> list[str]:
    """A command line with the original's flags of `export` as settings; that of other commands as it is.

    Raises:
        SpecError: a flag without its value.
    """
    if command != "export":
        return list(argv)
    found, rest = [], list(argv)
    while rest:
        flag, given, value = rest.pop(0).partition("=")
        named = _EXPORT.get(flag) if flag.startswith("-") else None
        sweep = flag == "-m" and (not rest or "=" in rest[0])  # Hydra's -m
        if flag in _SWITCHES:
            found += [_SWITCHES[flag]] if _SWITCHES[flag] else []
        elif (named or flag in _DROPPED) and not sweep:
            if not given:
                if not rest:
                    raise SpecError("needs a value", where="command line", found=flag)
                value = rest.pop(0)
            found += [f"{named}={value}"] if named else []
        else:
            found.append(flag + given + value)
    return found
