from __future__ import annotations

from rockfill.completion.budget import LEAST_TOKENS, UNMEASURED_TOKENS_PER_S, Budget


def test_the_budget_is_what_can_be_read_in_the_target_time() -> None:
    assert Budget(1.0).tokens(400.0) == 400
    assert Budget(0.5).tokens(4000.0) == 2000
    assert Budget(2.0).tokens(None) == 2 * UNMEASURED_TOKENS_PER_S


def test_a_slow_engine_still_gets_enough_to_go_by() -> None:
    assert Budget(1.0).tokens(10.0) == LEAST_TOKENS


def test_the_budget_stays_put_until_the_rate_has_clearly_changed() -> None:
    budget = Budget(1.0)
    assert [budget.tokens(rate) for rate in (400.0, 500.0, 300.0, 590.0)] == [400] * 4
    assert [budget.tokens(rate) for rate in (610.0, 450.0)] == [610, 610]
