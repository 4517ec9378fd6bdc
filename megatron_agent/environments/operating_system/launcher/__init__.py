"""A small process that starts sandboxes and keeps them within their limits.

It runs as a program of its own (standard library only) beside the harness, for three reasons: a sandbox is made by
fork, which a process with threads must not do; every sandbox dies with its parent, which must therefore be one
thread; and limits must hold while the harness is busy. It ends when its socket does, that is with the harness.
`python -S -E -m launcher FOLDER` in the folder above starts it within 50 ms: so it imports nothing of this project, and
its modules one another by relative names. FOLDER, which holds what sandboxes are mounted over, is removed at the end.

A request on the socket is one JSON object with file descriptors beside it; there is no answer: bubblewrap writes the
sandbox's process id to the last of them itself, and the reason is written there when a limit ends the sandbox.
"""

CONTROL_STATUS, SHELL_COMMANDS, SHELL_OUTPUT, SHELL_STATUS, INFORMATION, FILTER = 20, 21, 22, 23, 24, 25
"""Descriptors in the sandbox; the control's commands and output are its 0, 1 and 2."""
DESCRIPTORS = (0, 1, CONTROL_STATUS, SHELL_COMMANDS, SHELL_OUTPUT, SHELL_STATUS, FILTER, INFORMATION)
"""Where the descriptors of a request go, in its order."""
