"""What every page of ours has: one inline script at most, and a content policy that lets that one run and no other."""

from __future__ import annotations

import base64
import hashlib
import re


def script_hash(page: str) -> str:
    """The source that a Content-Security-Policy names for the first <script> of a page or template, byte for byte.

    The script must hold no template expression, or its bytes would change when the page is rendered.
    """
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
