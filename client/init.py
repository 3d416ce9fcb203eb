"""`braing3n-site init`: a folder for one hospital, with its settings to fill in and a key of its own."""

from __future__ import annotations

import re
from pathlib import Path

from braing3n_core.errors import UsageError
from braing3n_core.files import write_atomically
from privacy.signing import SigningKey

FILE = "site.toml"
KEY = "keys/site.pem"
CA = "keys/ca.crt"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")                  # braing3n_core.plan.Name
_SETTINGS = '''\
# One hospital's settings. Yours alone: no server reads or writes this file.
# A relative path begins at this folder. After a change run: braing3n-site doctor

[site]
name = {name}
# The BIDS folder with participants.tsv and sub-*/.
data = {data}
# This site's private key. Only the file that ends in .pub may be given away.
key = "{key}"
# The consortium's public key: whose signature makes a plan the consortium's. Ask its admin.
admin_key = "keys/admin.pub"
# Where the consortium's server listens, host:port, and the certificate that vouches for it. Empty: not known yet.
server = ""
ca = "{ca}"

# What this hospital allows, whatever a plan says.
[policy]
# The most epsilon that one patient may ever spend, over all plans together.
epsilon = 8.0
# The fewest patients with which this site takes part.
smallest_cohort = 20
'''


def init(folder: Path, name: str, data: Path | None) -> tuple[Path, str]:
    """Make <folder>/site.toml and a key readable by its owner alone; the file and the key's fingerprint.

    Never replaces anything: raises UsageError if there is a site already, KeyRefused if there is a key.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"a site cannot be called {name!r}; take small letters, digits and hyphens, a letter first")
    settings = folder / FILE
    if settings.exists():
        raise UsageError(f"{settings} is there already; edit it, or name another folder")
    (folder / KEY).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = SigningKey.generate()
    key.write(folder / KEY)
    place = "" if data is None else str(data.expanduser().absolute())
    text = _SETTINGS.format(name=_quoted(name), data=_quoted(place), key=KEY, ca=CA)
    write_atomically(settings, text.encode("utf-8"))
    return settings, key.public.fingerprint


def _quoted(text: str) -> str:
    """A TOML basic string."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in plain) + '"'
