"""A quick check that the Hugging Face hub answers, before its client starts its long retries."""

from engram.errors import UserError

TIMEOUT_S = 5.0


def require_hub(source: str) -> None:
    """Raise UserError that names `source` unless the hub answers or offline mode is set.

    The hub's own client tries six times over 23 seconds and prints every attempt. In offline mode (HF_HUB_OFFLINE=1) it reads only its
    local cache and quickly reports what is missing.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT_S)
    except Exception as error:
        raise UserError(
            f"{source}: {constants.ENDPOINT} does not answer ({short_cause(error)}); HF_HUB_OFFLINE=1 uses what its local cache holds"
        ) from error


def short_cause(error: BaseException) -> str:
    """First line of an exception's message, at most 200 characters; the exception's type if it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".")[:200] if lines else type(error).__name__
