"""The words of a record: a mapping that the processors fill and a renderer turns into output.

    event      the message
    code       the name of a `journal.Event`, in lower case
    exc_info   an exception, until a processor has made `traceback` of it
    site       file, line and function that the record comes from
    said       names of fields that the message already tells
    traceback  text of several lines

Every other key is a field. `code_file`, `code_line` and `code_func` are fields that take the place of `site`.
"""

from typing import Final

WORDS: Final = frozenset({"event", "code", "exc_info", "site", "said", "traceback"})
CODE_FIELDS: Final = ("code_file", "code_line", "code_func")
