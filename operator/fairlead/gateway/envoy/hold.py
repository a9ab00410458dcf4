"""Waiting for a first pod: Envoy retries within one attempt what found nobody there, and nothing else.

Where the request leaves from, each response says with which of Envoy's flags it ended. Only "UH", no healthy host, and "UF", no
connection, are retried: whatever a pod has answered, an error too, goes on. The public side knows nothing of it; to it, this is an
attempt that takes long.
"""

from __future__ import annotations

from typing import Final

from fairlead.gateway.envoy.replies import make_error, make_unavailable
from fairlead.gateway.envoy.words import Json, duration, json_body, set_header, typed
from fairlead.gateway.hold import LOOK_S, Hold

__all__ = [
    "FLAGS_HEADER",
    "HOLD_HEADERS",
    "LOOKS_HEADER",
    "make_empty_headers",
    "make_hold_answers",
    "make_hold_replies",
    "make_hold_retry",
    "make_looks_headers",
]

#: On responses: how they ended, as Envoy says it. Never taken from a backend.
FLAGS_HEADER: Final = "x-fairlead-flags"
#: And when to look again, seconds.
_AGAIN_HEADER: Final = "x-fairlead-again"
#: How often a pod was looked for. Callers see it, and so does the access log: once means that the request did not wait.
LOOKS_HEADER: Final = "x-fairlead-looks"
HOLD_HEADERS: Final = (FLAGS_HEADER, _AGAIN_HEADER)
_NOBODY: Final = "UH"
#: No connection came about: the name still has the address of the last pod, a second or more after that is gone.
_GONE: Final = "UF"
_FULL: Final = "UO"
_TOO_LATE: Final = "URX"
#: When those come back who were told that nobody is there, seconds.
_RETRY_AFTER_S: Final = 10


def make_empty_headers() -> list[Json]:
    """Response headers of a virtual host from which requests leave."""
    return [set_header(FLAGS_HEADER, "%RESPONSE_FLAGS%"), set_header(_AGAIN_HEADER, f"{LOOK_S:.0f}")]


def make_looks_headers() -> list[Json]:
    """Response headers of a virtual host in which requests wait."""
    return [
        set_header(FLAGS_HEADER, "%RESPONSE_FLAGS%"),
        set_header(LOOKS_HEADER, "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"),
    ]


def make_hold_retry(hold: Hold, time_s: float | None) -> Json:
    """`time_s`: how long a pod may take until its response begins."""
    policy: Json = {"retry_on": "retriable-headers", "num_retries": hold.tries}
    if hold.wait_s is not None:
        policy |= {
            "retriable_headers": [
                {"name": FLAGS_HEADER, "string_match": {"contains": flag}} for flag in (_NOBODY, _GONE)
            ],
            # From that to half of it more, by chance: unlike the usual back-off it is never next to nothing.
            "rate_limited_retry_back_off": {"reset_headers": [{"name": _AGAIN_HEADER, "format": "SECONDS"}]},
        }
    return policy if time_s is None else policy | {"per_try_timeout": duration(time_s)}


def make_hold_answers(hold: Hold) -> Json:
    """What callers are told when nobody came, or too many wait: the configuration of a filter of custom responses."""
    full = f"{hold.limit} requests wait for this model already, while it starts."
    late = "The model has no replica at the moment; one is started by this request."
    matchers = [_answer(_FULL, full, "no_capacity"), _answer(_TOO_LATE, late, "model_starting")]
    return typed(
        "envoy.extensions.filters.http.custom_response.v3.CustomResponse",
        custom_response_matcher={"matcher_list": {"matchers": matchers}},
    )


def _answer(flag: str, why: str, code: str) -> Json:
    message = f"{why} Next: try again in {_RETRY_AFTER_S}s."
    answer = typed(
        "envoy.extensions.http.custom_response.local_response_policy.v3.LocalResponsePolicy",
        status_code=503,
        body=json_body(make_error(message, "server_error", code)),
        response_headers_to_add=[set_header("retry-after", f"{_RETRY_AFTER_S}")],
    )
    header = typed("envoy.type.matcher.v3.HttpResponseHeaderMatchInput", header_name=FLAGS_HEADER)
    predicate = {
        "single_predicate": {"input": {"name": "flags", "typed_config": header}, "value_match": {"contains": flag}}
    }
    return {"predicate": predicate, "on_match": {"action": {"name": code, "typed_config": answer}}}


def make_hold_replies() -> list[Json]:
    """That such an answer is left as it is: Envoy's answers to its own failures all say why, and this one does not. And that who finds
    no pod, and may not wait, is told when to come back."""
    is_ours = typed(
        "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
        expression="response.code == 503 && (!has(response.code_details) || response.code_details == '')",
    )
    as_it_is = {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"}, "content_type": "application/json"}
    return [
        {
            "filter": {"extension_filter": {"name": "cel", "typed_config": is_ours}},
            "body_format_override": as_it_is,
        },
        {
            "filter": {"response_flag_filter": {"flags": [_NOBODY]}},
            "headers_to_add": [set_header("retry-after", f"{_RETRY_AFTER_S}")],
            "body_format_override": {"json_format": make_unavailable()},
        },
    ]
