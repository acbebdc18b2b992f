"""Every promise of the project, tried a few times; `python tests/reliability` tries each many times."""

from __future__ import annotations

from pathlib import Path

import pytest
from reliability.guarantees import GUARANTEES
from reliability.outcome import Guarantee, NotPossibleHereError


@pytest.mark.parametrize("guarantee", [g for g in GUARANTEES if g.fast], ids=lambda guarantee: guarantee.key)
def test_the_promise_is_kept(guarantee: Guarantee, tmp_path: Path) -> None:
    try:
        outcome = guarantee.experiment(tmp_path, guarantee.fast, 0)
    except NotPossibleHereError as reason:
        pytest.skip(f"this machine does not give {reason}")
    assert not outcome.failures
    assert outcome.trials > 0


def test_every_promise_is_a_sentence_with_a_name_of_its_own() -> None:
    assert len({guarantee.key for guarantee in GUARANTEES}) == len(GUARANTEES)
    for guarantee in GUARANTEES:
        assert guarantee.promise[0].isupper()
        assert guarantee.promise.endswith(".")
        assert guarantee.long >= max(1, guarantee.fast)
