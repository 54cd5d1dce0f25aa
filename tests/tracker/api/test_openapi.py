"""The description of the API is OpenAPI 3.1, and says what the routes say."""

import json
import re

import jsonschema_rs
import pytest

from tracker.api.openapi import PROBLEMS, describe_api, path_names, problem_statuses
from tracker.api.routes import PREFIX, ROUTES, Route

DESCRIPTION = json.loads(json.dumps(describe_api("1")))


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_route_is_described_with_all_its_parts(route: Route) -> None:
    operation = DESCRIPTION["paths"][PREFIX + route.path][route.method.lower()]
    assert operation["operationId"] == route.name
    in_path = [one["name"] for one in operation["parameters"] if one["in"] == "path"]
    assert in_path == path_names(route.path)
    assert ("requestBody" in operation) == (route.body is not None)
    answers = {int(status) for status in operation["responses"]}
    assert answers == {route.status, *problem_statuses(route)}
    for status in ("429", "503"):
        assert "Retry-After" in operation["responses"][status]["headers"]


def test_every_reference_leads_somewhere() -> None:
    text = json.dumps(DESCRIPTION)
    names = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert names <= set(DESCRIPTION["components"]["schemas"])
    assert len(names) > 20


@pytest.mark.parametrize("name", sorted(DESCRIPTION["components"]["schemas"]))
def test_schema_is_one_of_json_schema_2020(name: str) -> None:
    jsonschema_rs.meta.validate(DESCRIPTION["components"]["schemas"][name])


def test_every_problem_that_a_route_may_have_is_explained() -> None:
    assert {status for route in ROUTES for status in problem_statuses(route)} == set(PROBLEMS)


def test_what_changes_something_and_the_export_need_the_token_to_write() -> None:
    writing = {route.name for route in ROUTES if route.scope == "write"}
    assert writing == {"events", "export", "forget", "publish", "rollback"}
