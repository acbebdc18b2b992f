"""Prints the one command of the README that holds the given word."""

import re
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"

blocks = re.findall(r"```bash\n(.*?)```", README.read_text(), flags=re.DOTALL)
lines = [line for block in blocks for line in block.splitlines() if sys.argv[1] in line and "-m slow" not in line]
if len(lines) != 1:
    sys.exit(f"{len(lines)} commands with {sys.argv[1]!r} in {README.name}, expected 1: {lines}")
print(lines[0])
