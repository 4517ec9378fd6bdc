"""A chat client for any OpenAI-compatible server (transformers serve, vLLM, TGI, the hosted ones)."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from megatron_agent.environments.base import Message
from megatron_agent.errors import UserError

_CONTEXT_LIMIT = re.compile(r"context.{0,20}(length|window|limit)|maximum.{0,20}(tokens|length)|too long", re.I)
_WRONG_MODEL = re.compile(r"pinned to|model.{0,80}(not found|not exist|unknown)", re.I)  # some say 400, not 404


@dataclass(frozen=True)
class Reply:
    """A model's reply, and the token counts of the request if the server reports them."""

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class ContextLimitError(Exception):
    """The conversation is longer than the model's context."""


class RequestError(Exception):
    """The server answered a single request with an error that trying again did not mend."""


class ChatClient(Protocol):
    """What the episode loop needs of a model. Called from several threads at once."""

    def complete(self, messages: Sequence[Message]) -> Reply:
        """Return the model's reply to a conversation that ends on a user message."""


class ScriptedClient:
    """A client whose replies come from a function of the messages: scripted experts, tests."""

    def __init__(self, respond: Callable[[Sequence[Message]], str]) -> None:
        self._respond = respond

    def complete(self, messages: Sequence[Message]) -> Reply:
        return Reply(self._respond(messages))


class OpenAIChatClient:
    """Chat completions over the `openai` package; greedy by default, as in the paper.

    Message contents are sent stripped: training strips them (`chat/template.py`), as AgentTuning's own client did.

    Connection failures, time-outs and the statuses 408, 409, 429 and 5xx are tried again `retries` times with
    growing pauses (the package's own back-off). Then: UserError when the server is not there, does not know
    the model or refuses the key; ContextLimitError when the prompt is too long; RequestError otherwise.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str = "none",
        max_tokens: int = 128,
        temperature: float = 0.0,
        timeout: float = 120.0,
        retries: int = 3,
    ) -> None:
        import openai

        if not base_url.startswith(("http://", "https://")):
            raise UserError(
                f"--base-url: expected an http(s) address such as http://127.0.0.1:8000/v1, got {base_url!r}"
            )
        self.base_url = base_url
        self.model = model
        self.max_tokens = max_tokens
        self.temperature = temperature
        self._client = openai.OpenAI(base_url=base_url, api_key=api_key, timeout=timeout, max_retries=retries)

    def complete(self, messages: Sequence[Message]) -> Reply:
        import openai

        request: list[Any] = [{**message, "content": message["content"].strip()} for message in messages]
        try:
            completion = self._client.chat.completions.create(
                model=self.model,
                messages=request,
                max_tokens=self.max_tokens,
                temperature=self.temperature,
            )
        except openai.APITimeoutError as error:
            raise RequestError(f"no answer within {self._client.timeout} s") from error
        except openai.APIConnectionError as error:
            raise UserError(self._not_there(error)) from error
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise UserError(f"{self.base_url} refused the API key: {error}; pass the right one") from error
        except openai.APIStatusError as error:
            if error.status_code == 404 or _WRONG_MODEL.search(str(error)):
                raise UserError(
                    f"{self.base_url} does not know this address or the model {self.model!r}: {error}; the base "
                    "URL usually ends in /v1, and the model is the name the server was started with"
                ) from error
            if error.status_code in (400, 413, 422) and _CONTEXT_LIMIT.search(str(error)):
                raise ContextLimitError(str(error)) from error
            raise RequestError(f"status {error.status_code}: {error}") from error
        except openai.APIError as error:
            raise RequestError(str(error)) from error
        except ValueError as error:  # a body that calls itself JSON and is not
            raise RequestError(f"expected a chat completion, got no JSON: {error}") from error
        return self._reply(completion)

    def _reply(self, completion: Any) -> Reply:
        try:
            text = completion.choices[0].message.content
        except (AttributeError, IndexError, TypeError) as error:
            raise RequestError(f"expected a chat completion, got {str(completion)[:200]!r}") from error
        usage = getattr(completion, "usage", None)
        return Reply(
            text or "",
            getattr(usage, "prompt_tokens", None),
            getattr(usage, "completion_tokens", None),
        )

    def _not_there(self, error: Exception) -> str:
        return (
            f"no OpenAI-compatible server answers at {self.base_url} ({error.__cause__ or error}); start one, e.g. "
            f"`transformers serve {self.model} --device cpu --host 127.0.0.1 --port 8000`, and pass its address "
            "with --base-url http://127.0.0.1:8000/v1"
        )
