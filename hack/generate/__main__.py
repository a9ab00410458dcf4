"""Write every generated file that differs from what its generator says."""

from __future__ import annotations

from pathlib import Path

from hack.generate import generators

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Write and say what was written."""
    for path, text in generators.generate_all().items():
        file = ROOT / path
        if file.exists() and file.read_text() == text:
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
