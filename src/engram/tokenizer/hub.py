"""One quick look at whether the Hugging Face hub answers, before its client starts its long retries."""

from engram.errors import UserError

TIMEOUT_S = 5.0


def require_hub(source: str) -> None:
    """Return when the hub answers or offline mode is set; raise UserError naming `source` when it does not answer.

    The hub's own client tries six times over 23 seconds and prints every attempt. In offline mode (HF_HUB_OFFLINE=1) it
    reads its local cache only and is quick to say that something is not there.
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
    """First line of an exception's message, at most 200 characters; its type when it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".")[:200] if lines else type(error).__name__
