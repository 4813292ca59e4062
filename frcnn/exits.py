"""How a command ends: what it says on the way out, and its exit code."""

import sys
import traceback
from collections.abc import Callable

from frcnn.errors import FrcnnError


def exit_code(
    work: Callable[[], object], *, debug: bool, hint: str = "", wording: Callable[[str], str] = str
) -> int:
    """Run a command: 0 done, 1 failed while running, 2 wrong input, 130 interrupted.

    Args:
        work: the command.
        debug: whether stack traces are wanted.
        hint: how to ask for them, said with an error that nobody foresaw.
        wording: turns an error's text into the words of this command.
    """
    try:
        work()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except FrcnnError as error:
        if str(error) or debug:
            sys.stderr.write(wording(traceback.format_exc() if debug else f"{error}\n"))
        return error.exit_code
    except Exception as error:  # noqa: BLE001  (the last resort: no stack trace unless asked for)
        text = f"{type(error).__name__}: {error}\n" + (f"  try: {hint}\n" if hint else "")
        sys.stderr.write(traceback.format_exc() if debug else text)
        return 1
    return 0
