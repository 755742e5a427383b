"""What looks like a secret. Reports are recorded for everybody to read, and stay on record."""

from __future__ import annotations

import re

HIDDEN = "(secret)"
# By the end of its name; TOKENIZERS_PARALLELISM is no secret.
_NAME = re.compile(r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|CREDENTIALS?|AUTHORIZATION)$")
# Hugging Face's and OpenAI's tokens, HTTP's bearer tokens, and a password in a URL.
_VALUE = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}|\bsk-[A-Za-z0-9_-]{16,}|\bBearer\s+[^\s\"']+|(?<=://)[^\s/:@]{1,256}:[^\s/@]{1,256}(?=@)"
)
_ASSIGNED = re.compile(r"(?<![A-Za-z0-9_-])-{0,2}([A-Za-z_][A-Za-z0-9_-]{0,63})[=:]\s?([^\s,;\"']+)")


def names_secret(name: str) -> bool:
    """Whether a variable, or an option, of this name holds a secret."""
    return _NAME.search(name.upper().replace("-", "_")) is not None


def holds_secret(text: str) -> bool:
    """Whether a text has a secret in it, by its form or as in `HF_TOKEN=...`."""
    return without_secrets(text) != text


def without_secrets(text: str) -> str:
    """The text with what looks like a secret replaced."""
    return _ASSIGNED.sub(_hidden, _VALUE.sub(HIDDEN, text))


def _hidden(found: re.Match[str]) -> str:
    return found[0].removesuffix(found[2]) + HIDDEN if names_secret(found[1]) else found[0]
