"""An hour of conversations with a language model in Azure, as counts and quantiles: what is left of the trace that a simulation needs.

Derived from AzureLLMInferenceTrace_conv (Azure Public Dataset, CC-BY; Patel et al., "Splitwise: Efficient generative LLM inference
using phase splitting", ISCA 2024), 16 November 2023 from 18:15:46 on."""

from __future__ import annotations

from typing import Final

__all__ = ["COUNTS", "OUTPUTS", "PROMPTS"]

_COUNTS: Final = """
13 18 28 30 58 44 51 44 46 39 39 46 52 43 62 58 59 55 70 46 54 64 57 62 44 57 51 48 55 52 56 42 48 37 48 42 43 42 46 50 49 38 40
40 50 54 39 38 59 56 49 51 48 59 44 53 49 54 47 51 48 44 43 55 49 62 56 41 48 54 49 54 62 48 61 53 51 70 49 52 59 48 59 59 47 45
42 53 53 43 39 49 52 43 53 43 38 47 48 41 53 53 50 53 63 51 46 45 51 55 48 62 62 65 56 71 51 45 49 79 55 39 66 61 70 60 54 42 63
68 62 54 65 76 62 63 63 79 57 82 64 70 73 50 68 62 63 63 57 73 82 73 67 64 48 64 69 69 69 78 73 74 64 78 83 83 87 85 88 83 81 68
71 85 77 70 83 63 78 82 60 83 75 69 88 73 85 98 88 75 86 75 65 85 81 73 72 62 88 74 58 58 55 80 59 80 65 67 74 78 51 63 68 81 86
69 78 81 80 87 77 62 55 48 58 47 61 42 56 58 64 46 52 53 47 55 51 48 51 64 47 66 59 39 59 63 60 65 61 51 58 60 62 63 65 46 38 45
67 64 51 58 60 60 51 50 52 55 60 66 58 60 56 60 61 80 58 57 68 53 56 38 30 51 48 50 33 37 29 41 43 23 40 45 43 39 41 42 44 40 44
57 31 49 41 43 46 47 39 45 65 38 45 36 53 47 37 38 47 40 50 39 29 49 46 43 42 45 43 23 41 48 49 36 40 46 45 43 40 43 38 37 31 42
40 53 39 20 27 8
"""

#: Requests in each ten seconds.
COUNTS: Final = tuple(int(one) for one in _COUNTS.split())
#: Tokens of prompts and of answers: a twentieth of the requests lies between two of them.
PROMPTS: Final = (
    2,
    181,
    207,
    372,
    387,
    396,
    403,
    414,
    703,
    984,
    1020,
    1045,
    1071,
    1097,
    1130,
    1189,
    1315,
    1877,
    2735,
    4083,
    14050,
)
OUTPUTS: Final = (7, 41, 54, 67, 77, 85, 91, 96, 103, 113, 129, 151, 177, 217, 384, 395, 400, 411, 424, 451, 1000)
