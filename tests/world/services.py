"""Two hours of public services that the law was not tuned on, as counts and quantiles: what is left of the traces that a simulation needs.

- Code: AzureLLMInferenceTrace_code (Azure Public Dataset, CC-BY 4.0; Patel et al., "Splitwise: Efficient generative LLM inference using
  phase splitting", ISCA 2024), 16 November 2023 from 18:17:03 on: 8,819 requests.
- Chat with long prompts: conversation_trace.jsonl of Mooncake's FAST'25 release (github.com/kvcache-ai/Mooncake, Apache-2.0; Qin et al.,
  "Mooncake: Trading More Storage for Less Computation", FAST 2025), an hour of Kimi: 12,031 requests. What of the prompts was in a
  prefix cache is left out, since the engine of this world has none."""

from __future__ import annotations

from typing import Final

__all__ = ["CODE_COUNTS", "CODE_OUTPUTS", "CODE_PROMPTS", "KIMI_COUNTS", "KIMI_OUTPUTS", "KIMI_PROMPTS"]

_CODE: Final = """
12 0 5 46 0 0 0 0 0 0 0 0 0 0 0 0 0 0 29 132 40 52 137 141 0 0 59 64 21 43 67 14 0 19 30 0 0 0 15 0 0 0 42 0 0 0 0 0 0
0 0 17 21 0 0 28 79 234 135 0 88 132 107 24 52 18 22 41 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 11 166 327 58 21 49 40 113 115
31 0 0 0 0 0 0 0 0 0 0 0 0 0 20 89 77 71 35 17 107 32 0 0 54 123 106 44 72 0 0 0 0 0 0 72 6 0 0 0 52 71 32 46 105 42
10 61 139 146 49 128 21 0 8 75 20 34 0 0 0 0 0 0 0 24 52 52 0 0 76 35 0 0 0 65 140 48 0 31 122 38 0 54 74 68 0 51 67 0
0 0 0 5 65 23 55 21 0 0 0 25 29 0 76 142 27 0 40 66 31 13 45 4 84 12 0 0 0 0 0 0 0 0 17 149 63 65 45 3 0 0 0 0 52 126
159 0 0 0 0 38 0 11 63 69 10 0 0 0 0 0 0 0 0 0 0 0 28 36 66 0 18 62 23 126 119 0 0 0 0 0 0 22 69 8 0 0 0 0 0 0 0 0 0 0
0 0 0 0 0 3 29 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 50 47 0 0 0 0 28 78 20 55 31 0 0 0 22 0 0 0 0 0 0 0 32 30 0 0
0 27 56 0 0 0 0 0 47 145 51
"""

_KIMI: Final = """
38 27 22 32 22 21 31 31 36 31 25 23 27 30 53 32 29 46 20 23 37 25 26 44 17 29 38 39 37 27 30 25 18 41 30 20 27 21 19
28 19 30 31 29 38 36 26 23 39 25 28 23 20 27 32 27 22 42 20 36 38 30 45 29 42 34 39 31 36 24 31 25 38 30 22 39 29 28
37 28 37 49 23 30 18 28 30 18 41 49 29 27 20 32 26 28 48 30 35 32 18 26 38 24 25 34 25 23 35 23 22 43 38 29 37 40 32
47 30 34 23 33 38 32 36 41 41 29 24 40 32 40 36 32 31 40 34 45 37 37 28 25 39 42 33 31 27 35 21 25 39 34 44 51 31 41
23 29 35 30 27 35 49 29 40 39 32 21 44 23 31 50 41 27 40 28 28 45 39 29 45 30 29 51 45 35 36 21 29 44 24 43 22 25 31
31 43 42 22 34 25 42 27 38 39 38 48 28 37 35 43 37 26 47 24 31 44 37 44 35 49 38 26 30 14 36 31 39 56 45 27 34 36 30
36 36 48 37 42 35 49 36 31 39 20 32 38 39 33 55 33 36 54 30 33 30 24 35 32 30 27 49 44 42 46 27 28 45 30 42 35 29 38
36 42 35 44 26 35 31 34 26 57 47 28 39 28 31 45 33 36 41 38 34 48 25 59 36 30 37 34 39 42 43 27 34 41 32 41 55 39 39
38 27 31 44 49 33 42 34 38 32 36 34 39 31 28 39 27 36 60 34 32 35 31 46 41 36 34 48 23 36 31 32 67 38 35 22 36 21 36
37 35 38
"""

#: Requests in each ten seconds.
CODE_COUNTS: Final = tuple(int(one) for one in _CODE.split())
KIMI_COUNTS: Final = tuple(int(one) for one in _KIMI.split())
#: Tokens of prompts and of answers: a twentieth of the requests lies between two of them.
# fmt: off
CODE_PROMPTS: Final = (
    3, 75, 147, 232, 386, 578, 770, 938, 1075, 1261, 1469, 1690, 1909, 2164, 2433, 2745, 3192, 3919, 5186,
    7302, 7437,
)
CODE_OUTPUTS: Final = (
    6, 6, 7, 7, 8, 9, 9, 10, 11, 12, 13, 14, 16, 18, 20, 24, 29, 39, 55, 90, 1899,
)
KIMI_PROMPTS: Final = (
    891, 901, 964, 1261, 1662, 2307, 3263, 4250, 4993, 5871, 6909, 8186, 9570, 11239, 13196, 15366, 17869,
    21467, 27367, 39549, 126195,
)
KIMI_OUTPUTS: Final = (
    1, 10, 24, 46, 100, 157, 213, 256, 291, 323, 350, 375, 399, 423, 447, 472, 504, 543, 597, 698, 2000,
)
# fmt: on
