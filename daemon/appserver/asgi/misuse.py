"""Where in the application a mistake stands."""

import sys
from pathlib import Path
from typing import Any

_HERE = str(Path(__file__).parent)
_CALL = str(Path(__file__).with_name("cycle.py"))


def find_caller() -> dict[str, Any]:
    """File, line and function of the nearest frame outside `asgi/`, as journal fields.

    None where there is no such frame up to the application's call: a WSGI application runs in another thread.
    """
    frame = sys._getframe(1)  # noqa: SLF001 - the documented way of inspect and logging, without their cost
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        if (frame.f_code.co_filename, frame.f_code.co_name) == (_CALL, "run"):
            return {}
        frame = frame.f_back
    return {
        "code_file": frame.f_code.co_filename,
        "code_line": frame.f_lineno,
        "code_func": frame.f_code.co_name,
    }
