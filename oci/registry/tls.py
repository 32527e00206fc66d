"""What a host's certificates must be: the system's authorities, configured ones, or on demand anything."""

from __future__ import annotations

import os
import ssl

from oci.errors import RegistryError
from oci.registry.config import HostConfig
from oci.registry.redact import redact

_ABOUT_CERTIFICATES = ("certificate", "CERTIFICATE", "hostname mismatch", "doesn't match")


def context_of(config: HostConfig, bundle: str) -> ssl.SSLContext:
    """The TLS settings of a host; `bundle` is used on systems without authorities of their own.

    Raises RegistryError for files that cannot be used.
    """
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not (paths.cafile or (paths.capath and os.path.isdir(paths.capath))):
        context.load_verify_locations(bundle)
    try:
        for path in config.ca:
            context.load_verify_locations(path)
        for pair in config.keypair:
            context.load_cert_chain(pair.cert, pair.key)
    except OSError as error:  # ssl's own errors are OSErrors too
        names = ", ".join([*config.ca, *(pair.cert for pair in config.keypair)])
        reason = redact(error.strerror or str(error), 200)
        raise RegistryError(f"cannot use the configured certificates ({names}): {reason}") from None
    if config.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def is_about_certificate(text: str) -> bool:
    """Whether an error's text says that TLS was spoken, but the certificate not believed."""
    return any(words in text for words in _ABOUT_CERTIFICATES)


def distrusted(text: str) -> str:
    """Such an error in words for people, and what to do."""
    inner = text.partition("certificate verify failed: ")[2].partition(" (_ssl")[0] or text[-200:]
    return (
        f"the certificate is not trusted: {inner}; name its authority (`ca` in the configuration), or accept "
        "any certificate with `insecure` or --tls-verify=false"
    )
