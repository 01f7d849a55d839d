"""Whether the hub of pretrained weights answers, found out in seconds instead of a minute of retries."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_log = logging.getLogger(__name__)
_TIMEOUT_S = 5.0


def hub_reached() -> bool:
    """One request to the hub's address, without retries; proxies and ``HF_ENDPOINT`` are honoured.

    False at once where ``HF_HUB_OFFLINE`` is set.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=_TIMEOUT_S)
    except Exception as error:  # the client library and its exceptions differ between versions of the hub
        _log.debug("hub not reached: %s", error)
        return False
    return True


@contextmanager
def offline_hub() -> Iterator[None]:
    """Inside, the hub's client reads its local cache alone."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
