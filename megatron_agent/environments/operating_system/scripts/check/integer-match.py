"""Whether the answer and the expected output are the same whole number."""

import sys

try:
    same = int(sys.argv[1]) == int(sys.argv[2])
except ValueError:
    same = False
sys.exit(0 if same else 1)
