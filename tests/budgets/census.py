"""Counts Python-level calls: functions of a package that are entered, and calls that they make to what is outside.

What happens inside of those others is not counted: it changes with the versions of h11, uvloop and the standard
library. That the package calls them is.

Python 3.12 has sys.monitoring (PEP 669). 3.11 has sys.setprofile only, which does not see that a class is called: its
numbers are lower, and comparable with its own alone.
"""

import sys
from collections import Counter
from pathlib import Path
from types import BuiltinFunctionType, BuiltinMethodType, CodeType, FrameType, FunctionType, MethodType
from typing import Any, Self


class Census:
    """A context manager; `entered` and `called` hold what happened in this thread while it was active.

    Args:
        folder: The package's source files; everything else is outside.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = f"{folder}/"
        self.entered: Counter[str] = Counter()
        self.called: Counter[str] = Counter()

    def __enter__(self) -> Self:
        if sys.version_info >= (3, 12):
            self._begin()
        else:
            sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        if sys.version_info >= (3, 12):
            self._end()
        else:
            sys.setprofile(None)

    @property
    def total(self) -> int:
        """All that was counted."""
        return self.entered.total() + self.called.total()

    def _is_inside(self, code: CodeType) -> bool:
        return code.co_filename.startswith(self._folder)

    if sys.version_info >= (3, 12):

        def _begin(self) -> None:
            monitoring = sys.monitoring
            # Whichever is free: coverage and debuggers have ids of their own.
            self._tool = next(tool for tool in range(6) if monitoring.get_tool(tool) is None)
            monitoring.use_tool_id(self._tool, "budgets")
            events = monitoring.events
            self._handlers: dict[int, Any] = {
                events.PY_START: self._on_entry,
                events.PY_RESUME: self._on_entry,
                events.CALL: self._on_call,
            }
            for event, handler in self._handlers.items():
                monitoring.register_callback(self._tool, event, handler)
            # Places outside of the package are switched off one by one, and stay so: each census asks anew.
            monitoring.restart_events()
            monitoring.set_events(self._tool, events.PY_START | events.PY_RESUME | events.CALL)

        def _end(self) -> None:
            monitoring = sys.monitoring
            monitoring.set_events(self._tool, monitoring.events.NO_EVENTS)
            for event in self._handlers:
                monitoring.register_callback(self._tool, event, None)
            monitoring.free_tool_id(self._tool)

        def _on_entry(self, code: CodeType, _offset: int) -> Any:
            if not self._is_inside(code):
                return sys.monitoring.DISABLE
            self.entered[code.co_qualname] += 1
            return None

        def _on_call(self, code: CodeType, _offset: int, called: object, _argument: object) -> Any:
            if not self._is_inside(code):
                return sys.monitoring.DISABLE
            function = called.__func__ if isinstance(called, MethodType) else called
            # One of the package's own is counted as it is entered.
            if not (isinstance(function, FunctionType) and self._is_inside(function.__code__)):
                self.called[name_callable(called)] += 1
            return None

    def _profile(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call":
            if self._is_inside(code):
                self.entered[code.co_qualname] += 1
            elif frame.f_back is not None and self._is_inside(frame.f_back.f_code):
                self.called[f"{code.co_qualname}()"] += 1
        elif event == "c_call" and self._is_inside(code):
            self.called[name_callable(argument)] += 1


def name_callable(called: object) -> str:
    """What a reader of the source would call it: `dict.get()`, `Task()`."""
    name = getattr(called, "__qualname__", None) or type(called).__qualname__
    if isinstance(called, BuiltinFunctionType | BuiltinMethodType) and isinstance(called.__self__, type):
        name = f"{called.__self__.__qualname__}.{called.__name__}"
    return f"{name}()"
