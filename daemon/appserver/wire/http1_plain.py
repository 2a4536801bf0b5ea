"""HTTP/1.1 with heads parsed by a regular expression: where no native parser is installed.

Distributions do not package the native parser, and h11 takes 17 us for a head of three fields where this takes 1.2
(docs/adr/0014). It knows no more than the plain form of a head, by the grammar of RFC 9112 sections 2 to 5; whatever
does not match is the reference engine's to judge. So nothing is laxer here, and nothing is refused here.
"""

import re
from typing import ClassVar, Final

from appserver.wire.http1_referral import ReferringEngine
from appserver.wire.semantics import Refusal, Request, check_request

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110 section 5.6.2
_VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]*"  # field-value with the white space around it, RFC 9110 section 5.5

# Possessive: a repetition that has matched is not tried again with less, so the time is linear in the head's length.
_HEAD: Final = re.compile(rb"(%b) ([\x21-\x7e]+) HTTP/(1\.[01])((?:\r\n%b:%b)*+)\r\n\r\n" % (_TOKEN, _TOKEN, _VALUE))


class PlainEngine(ReferringEngine):
    """One HTTP/1.1 connection, server side; implements `wire.engine.Engine`."""

    __slots__ = ()

    name: ClassVar[str] = "plain"

    def read_head(self, head: bytes) -> Request:
        """See `Http1Engine`."""
        match = _HEAD.fullmatch(head) if len(head) <= self._plain_length else None
        if match is None:
            return self._refer(head)
        method, target, version, lines = match.groups()
        headers = []
        for line in lines[2:].split(b"\r\n") if lines else ():
            name, _, value = line.partition(b":")
            headers.append((name.lower(), value.strip(b" \t")))
        if len(headers) > self._limits.fields:
            return self._refer(head)
        try:
            return check_request(method, target, headers, version, self._limits)
        except Refusal:
            return self._refer(head)
