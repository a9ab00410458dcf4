"""Words of others, fit to be shown: what a container, a scheduler or the API server says is quoted in status, Events and logs,
and nobody but us keeps the credentials out of it (law 6).

An engine that dies prints the token that was refused, the URL that it asked, or its whole command line. Such words are worth
quoting and their secrets are not, so what looks like a credential is replaced. It is a net and not a wall: a password that
looks like a word passes. The wall is that fairlead reads no Secret.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["REDACTED", "redact"]

REDACTED: Final = "<redacted>"

#: Keys whose makers gave them a beginning of their own: Hugging Face, OpenAI and Anthropic, GitHub, GitLab, Slack, AWS, Google,
#: NVIDIA, Groq, Replicate; and JSON Web Tokens, which Kubernetes' own are.
_KNOWN: Final = (
    r"\b(?:hf_[A-Za-z0-9]{8,}|sk-[A-Za-z0-9_-]{16,}|(?:gh[pousr]|github_pat)_\w{16,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}|"
    r"(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{30,}|nvapi-[\w-]{16,}|gsk_\w{16,}|r8_\w{16,}|"
    r"eyJ[\w-]{8,2000}\.[\w-]{8,4000}(?:\.[\w-]*)?)"
)
#: A word with a digit in it, or a long one. (Repetitions are bounded, since what is searched may be made to be slow.)
_RANDOM: Final = r"(?=[^\s\"',;&]{0,200}\d|[^\s\"',;&]{20})[^\s\"',;&]{6,}"
_PRIVATE_KEY: Final = r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
_IN_URL: Final = r"(://)[^/\s:@]{0,100}:[^/\s@]{1,300}(?=@)"
_IN_HEADER: Final = rf"(\b(?:Bearer|Basic)[ :]{{1,3}}){_RANDOM}"
#: What signs a URL (S3, Google, Azure, CloudFront: where hubs redirect downloads to) or proves who asks.
_IN_QUERY: Final = (
    r"([?&](?:X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|Signature|Policy|Key-Pair-Id|sig|"
    r"(?:access_|auth_)?token|(?:api_?)?key)=)[^&\s\"']+"
)
_IN_FLAG: Final = r"((?<![\w-])--[\w-]{0,40}(?:key|token|password|secret)(?:=|\s{1,3}))(?!-)[^\s\"']+"
#: `HF_TOKEN=…`, `"api_key": "…"`, `password: …`. What follows `token` and `key` must look random, since parsers say "unexpected
#: token: integer"; what follows `password` or `secret` need not.
_ASSIGNED: Final = (
    r"((?:token|(?:api|access|account|private|signing|master)[_-]?key|authorization)[\"']?\s{0,3}[=:]\s{0,3}[\"']?)"
    rf"{_RANDOM}"
)
_OPEN_WORD: Final = r"((?:password|passwd|passphrase|secret)[\"']?\s{0,3}[=:]\s{0,3}[\"']?)[^\s\"',;&]{3,}"

_PATTERNS: Final = (
    (re.compile(_PRIVATE_KEY, re.DOTALL), REDACTED),
    (re.compile(_KNOWN), REDACTED),
    *(
        (re.compile(pattern, re.IGNORECASE), rf"\g<1>{REDACTED}")
        for pattern in (_IN_URL, _IN_HEADER, _IN_QUERY, _IN_FLAG, _ASSIGNED, _OPEN_WORD)
    ),
)
#: In lower case: words without any of these match none of the patterns, which are slow beside this.
_HINTS: Final = (
    "token", "key", "secret", "passw", "passphrase", "authorization", "bearer", "basic", "signature", "credential",
    "policy=", "sig=", "://", "hf_", "sk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox",
    "akia", "asia", "aiza", "nvapi-", "gsk_", "r8_", "eyj",
)  # fmt: skip


def redact(words: str) -> str:
    """`words` with `<redacted>` in place of what looks like a credential. Redact before shortening: half a token is not known
    for one. Doing it twice changes nothing."""
    lowered = words.lower()
    if not any(hint in lowered for hint in _HINTS):
        return words
    for pattern, replacement in _PATTERNS:
        words = pattern.sub(replacement, words)
    return words
