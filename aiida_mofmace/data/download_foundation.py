"""Let mace download one of its foundation models: ``python -m aiida_mofmace.data.download_foundation NAME``.

A program of its own because it imports torch and mace, which the processes of AiiDA never do. The last line it prints
is the path of the file.
"""

from __future__ import annotations

import sys


def main(arguments: list[str]) -> int:
    """Download the model called ``arguments[0]`` by mace and print the path of the file; returns the exit code."""
    if len(arguments) != 1:
        print("usage: python -m aiida_mofmace.data.download_foundation NAME", file=sys.stderr)
        return 2
    try:
        from mace.calculators.foundations_models import download_mace_mp_checkpoint, mace_mp_urls
    except ImportError as error:
        print(
            f"mace cannot be imported ({error}); install it with: pip install 'aiida-mofmace[worker]'", file=sys.stderr
        )
        return 1
    if arguments[0] not in mace_mp_urls:
        print(f"this version of mace knows no {arguments[0]}, only {', '.join(mace_mp_urls)}", file=sys.stderr)
        return 1
    try:
        print(download_mace_mp_checkpoint(arguments[0]))
    except (OSError, RuntimeError) as error:
        print(f"the download of {mace_mp_urls[arguments[0]]} failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
