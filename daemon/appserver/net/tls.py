"""TLS contexts: what is spoken, with which certificate, and what an application is told of it.

Versions and cipher suites are those of Mozilla's "intermediate" configuration (https://wiki.mozilla.org/Security/
Server_Side_TLS, version 5.7), but for its three DHE suites: no client of today needs them, and whoever asks for one
makes the server compute far more than itself (CVE-2002-20001).

A context holds one certificate. A handshake begins with the default one, and moves on to another as soon as the
client has told the name that it wants (SNI, RFC 6066 section 3). Python has one call-back for that, so a context knows
all the others of its moment: nobody gets a certificate of an earlier one.
"""

import os
import ssl
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ssl import SSLContext, SSLObject, TLSVersion, VerifyMode
from typing import Any, Final

from appserver.errors import CertificateError, UsageError
from appserver.net import x509
from appserver.net.certificates import Identity, find_files, read_identity, read_password
from appserver.settings import Settings
from appserver.system.credentials import find_file
from appserver.telemetry.log import Log

CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"
    ":ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"
    ":ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
"""Of TLS 1.2. Those of TLS 1.3 are all good, and ssl has no way to choose among them."""

_PRIORITIZE_CHACHA: Final = 1 << 21  # SSL_OP_PRIORITIZE_CHACHA of SSL_CTX_set_options(3), which ssl has no name for
_VERSIONS: Final = {"1.2": TLSVersion.TLSv1_2, "1.3": TLSVersion.TLSv1_3}
_VERSION_NUMBERS: Final = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
_CLIENT_CERT: Final = {
    "none": VerifyMode.CERT_NONE,
    "optional": VerifyMode.CERT_OPTIONAL,
    "required": VerifyMode.CERT_REQUIRED,
}
# OpenSSL tells by the first two that the key is another certificate's of the same type, by the third, of another type.
_MISFITS: Final = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})


class Context(SSLContext):
    """A TLS context that knows its certificate.

    Attributes:
        pem: The certificate that it shows.
        suites: The number of each cipher suite that it speaks, by OpenSSL's name.
        inadequate: Those of them that HTTP/2 must not be spoken over (RFC 9113 appendix A).
    """

    pem: str
    suites: Mapping[str, int]
    inadequate: frozenset[str]


@dataclass(frozen=True, slots=True)
class Offer:
    """The certificates of one moment.

    Attributes:
        identities: All that were read; the first one is the default.
        contexts: What a handshake begins with: where HTTP/2 is offered (True), and where it is not.
    """

    identities: tuple[Identity, ...]
    contexts: Mapping[bool, Context]


def load(settings: Settings, variants: Iterable[bool]) -> Offer:
    """Read all certificates that the settings name, and make contexts of them.

    Args:
        settings: Files, versions, ciphers, clients.
        variants: Whether HTTP/2 is offered; one context each.

    Raises:
        OperatorError: One of the files or settings cannot be taken; see `net.certificates`.
    """
    identities = tuple(read_identity(files) for files in find_files(settings))
    if not identities:
        raise UsageError("--tls-key" if settings.tls_key else "--tls-cert", None, "expected a certificate (--tls-cert)")
    password = read_password(settings.tls_key_password)
    return Offer(identities, {http2: _join(identities, settings, password, http2=http2) for http2 in variants})


def _join(identities: Iterable[Identity], settings: Settings, password: bytes | None, *, http2: bool) -> Context:
    """Make a context for each certificate; the first one hands over to the others by name."""
    contexts = [(identity, make_context(identity, settings, password, http2=http2)) for identity in identities]
    default = contexts[0][1]
    if len(contexts) > 1:
        names: dict[str, Context] = {}
        for identity, context in contexts:
            for name in identity.facts.names:
                names.setdefault(name, context)

        def choose(connection: SSLObject, name: str | None, _: SSLContext) -> None:
            if name is not None and (context := find_context(names, name)) is not None:
                connection.context = context

        default.sni_callback = choose
    return default


def find_context(names: Mapping[str, Context], name: str) -> Context | None:
    """The context for a name that a client asks for: by the exact name, else by a wildcard (RFC 9525 section 6.3)."""
    name = name.lower().rstrip(".")
    return names.get(name) or names.get(f"*.{name.partition('.')[2]}")


def hush(log: Log) -> None:
    """Keep clients from writing tracebacks to stderr.

    A name (SNI) that is not ASCII fails in ssl before it reaches a call-back of ours. ssl turns the client away, which
    is a record as for every handshake that fails, and reports the UnicodeDecodeError as an exception that nobody can
    catch (`_servername_callback` in Modules/_ssl.c). All others go on to the hook that was there.
    """
    report = sys.unraisablehook

    def tell(unraisable: "sys.UnraisableHookArgs") -> None:
        error = unraisable.exc_value
        if isinstance(error, UnicodeDecodeError) and isinstance(unraisable.object, bytes):
            log.debug(f"A client asked for a name that is not ASCII: {unraisable.object!r}")
        else:
            report(unraisable)

    sys.unraisablehook = tell


def make_context(identity: Identity, settings: Settings, password: bytes | None, *, http2: bool) -> Context:
    """Make the context of one certificate.

    Raises:
        CertificateError: The key does not fit or does not open, or OpenSSL finds the certificate too weak.
        UsageError: The cipher suites are unknown.
    """
    context = Context(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.tls_min_version]
    # The order is ours, but a client that puts ChaCha20 first gets it: it has no AES in hardware.
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | _PRIORITIZE_CHACHA
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    # Each ticket of TLS 1.3 costs 20 us of the 370 that a new connection costs. One is enough to come back with.
    context.num_tickets = 1
    try:
        context.set_ciphers(settings.tls_ciphers or CIPHERS)
    except ssl.SSLError:
        raise UsageError(
            "--tls-ciphers", settings.tls_ciphers, "OpenSSL knows no such suite of TLS 1.2; see `openssl ciphers`"
        ) from None
    context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    _load_pair(context, identity, password)
    _load_authorities(context, settings)
    ciphers = context.get_ciphers()
    context.pem = identity.pem
    context.suites = {cipher["name"]: cipher["id"] & 0xFFFF for cipher in ciphers}
    context.inadequate = frozenset(
        cipher["name"]
        for cipher in ciphers
        if cipher["protocol"] != "TLSv1.3" and not (cipher["aead"] and cipher["kea"].startswith(("kx-ecdhe", "kx-dhe")))
    )
    return context


def _load_pair(context: Context, identity: Identity, password: bytes | None) -> None:
    files, asked = identity.files, False

    def tell() -> bytes:
        # Without a call-back OpenSSL would ask on the terminal.
        nonlocal asked
        asked = True
        if password is None:
            raise CertificateError(f"{files.key}: the key is encrypted; give its password (--tls-key-password)")
        return password

    try:
        context.load_cert_chain(files.certificate, files.key, tell)
    except ssl.SSLError as error:
        if error.reason in _MISFITS:
            text = f"{files.key}: is not the key of {files.certificate}"
        elif error.reason:
            text = f"{files.certificate}: OpenSSL does not take it: {_words(error.reason)}"
        elif asked:
            text = f"{files.key}: the password (--tls-key-password) does not open the key"
        else:
            text = f"{files.key}: OpenSSL cannot read the private key in it"
        raise CertificateError(text) from error
    except OSError as error:
        raise CertificateError(f"{files.certificate}, {files.key}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # a password of more than 1024 bytes
        raise CertificateError(f"{files.key}: the password (--tls-key-password): {error}") from error


def _load_authorities(context: Context, settings: Settings) -> None:
    context.verify_mode = _CLIENT_CERT[settings.tls_client_cert]
    if settings.tls_ca is None:
        return
    path = find_file(settings.tls_ca)
    try:
        if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir() raises where it may not look
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise CertificateError(f"{path}: expected certificates of authorities in PEM form (--tls-ca)") from error
    except OSError as error:
        raise CertificateError(f"{path}: the authorities (--tls-ca) cannot be read: {error.strerror}") from error


def _words(reason: str) -> str:
    return reason.replace("_", " ").lower()


# --- an open connection -----------------------------------------------------------------------------------------------


def describe(connection: SSLObject) -> dict[str, Any]:
    """What the ASGI TLS extension tells an application (https://asgi.readthedocs.io/en/latest/specs/tls.html).

    A client whose certificate cannot be verified is turned away in the handshake, so `client_cert_error` is never set.
    """
    context = connection.context
    suite = connection.cipher()
    chain = _read_chain(connection)
    return {
        "server_cert": context.pem if isinstance(context, Context) else None,
        "client_cert_chain": tuple(ssl.DER_cert_to_PEM_cert(item) for item in chain),
        "client_cert_name": x509.read_der(chain[0]).subject if chain else None,
        "client_cert_error": None,
        "tls_version": _VERSION_NUMBERS.get(connection.version() or ""),
        "cipher_suite": context.suites.get(suite[0]) if suite is not None and isinstance(context, Context) else None,
    }


def _read_chain(connection: SSLObject) -> list[bytes]:
    """The client's certificates in DER form; before Python 3.13 the first one alone."""
    if connection.context.verify_mode is VerifyMode.CERT_NONE:
        return []
    first = connection.getpeercert(binary_form=True)
    if first is None:
        return []
    chain = connection.get_unverified_chain() if hasattr(connection, "get_unverified_chain") else []
    return chain or [first]


def is_adequate(connection: SSLObject) -> bool:
    """Whether HTTP/2 may be spoken over the cipher suite that was agreed on (RFC 9113 section 9.2.2).

    Always, but where `--tls-ciphers` lets suites in that the RFC has on its list.
    """
    context, suite = connection.context, connection.cipher()
    return not (isinstance(context, Context) and suite is not None and suite[0] in context.inadequate)


def explain(error: BaseException) -> str:
    """Why a handshake failed, in OpenSSL's words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the client's certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return _words(error.reason)
    return str(error) or "the client closed the connection"
