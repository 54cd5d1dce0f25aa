"""Tests of one group run in one process: one broker, one training, one site for all of them."""

import os

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="all run in one process")
@pytest.mark.xdist_group("groups")
def test_the_group_of_a_test_is_known_to_who_deals_tests_out(
    request: pytest.FixtureRequest,
) -> None:
    assert request.node.nodeid.endswith("@groups")


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="all run in one process")
@pytest.mark.kafka
def test_tests_with_apache_kafka_are_a_group_and_share_one_broker(
    request: pytest.FixtureRequest,
) -> None:
    assert request.node.nodeid.endswith("@kafka")
