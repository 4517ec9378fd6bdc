"""Whether the answer occurs in the expected output, line ends and outer blanks apart."""

import sys

answer, expected = (text.replace("\r\n", "\n").replace("\r", "\n").strip() for text in sys.argv[1:3])
sys.exit(0 if answer in expected else 1)
