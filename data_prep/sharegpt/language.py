"""The language of a conversation, by py3langid (offline, deterministic; extra `sharegpt`)."""

import re
from collections.abc import Callable, Sequence

from megatron_agent.chat.conversation import Turn
from megatron_agent.errors import UserError

CODE_OR_URL = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+", re.DOTALL)
JUDGED_CHARACTERS = 2_000


def load_detector(keep_lang: str) -> Callable[[Sequence[Turn]], str]:
    """Return a function from turns to an ISO 639-1 code, or `zxx` (no language: base64, bare code).

    The rule: all messages joined, code blocks and addresses removed, the first 2,000 characters judged; text
    that is nothing but code is judged as it stands. Raises `UserError` when py3langid is not installed or does not
    know `keep_lang`.
    """
    try:
        import py3langid
    except ImportError as error:
        raise UserError(
            "--keep-lang needs py3langid; pip install 'agentlm-megatron[sharegpt]', or leave --keep-lang out"
        ) from error

    known = {str(code) for code, _ in py3langid.rank("")}
    if keep_lang not in known:
        raise UserError(f"--keep-lang {keep_lang}: expected a language of py3langid, one of {', '.join(sorted(known))}")

    def detect(turns: Sequence[Turn]) -> str:
        text = "\n".join(turn.value for turn in turns)
        prose = CODE_OR_URL.sub(" ", text).strip() or text
        return str(py3langid.classify(prose[:JUDGED_CHARACTERS])[0])

    return detect
