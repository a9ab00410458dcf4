"""`python -m hack.tools`: build the tools and print their folder."""

from __future__ import annotations

import sys

from fairlead_cluster.errors import BuildError
from hack.tools.build import find_or_build


def main() -> int:
    """0 and the folder on stdout, or 1 and the reason on stderr."""
    try:
        tools = find_or_build(lambda line: print(line, file=sys.stderr, flush=True))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(tools.helm.parent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
