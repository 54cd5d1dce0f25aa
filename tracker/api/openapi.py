"""The OpenAPI description of the HTTP API, made from its routes and messages."""

import re
from typing import Any

import msgspec

from tracker.api.problems import PROBLEM_TYPE, Problem
from tracker.api.routes import PREFIX, ROUTES, Route
from tracker.events.wire import MAX_ID_BYTES

OPENAPI = "3.1.0"

JSON_TYPE = "application/json"

STREAM_TYPE = "text/event-stream"

PROBLEMS: dict[int, str] = {
    400: "The request is wrong; `detail` says how.",
    401: "A token is missing, or is not the worker's.",
    403: "The token may only read; or there is none, and the request is not of this machine.",
    404: "Nothing is known of the user, item or version.",
    409: "The request does not fit the settings or the artifact of the worker.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    421: "Another worker has the user, and its address is not known here.",
    429: "Too many requests; ask again after `Retry-After` seconds.",
    500: "A bug; please report it.",
    503: "The worker cannot answer now; ask again after `Retry-After` seconds.",
}
"""Statuses of problems, and what each means."""


def describe_api(version: str) -> dict[str, Any]:
    """Return the description as an object for JSON.

    Args:
        version: of the program.
    """
    types: list[Any] = [Problem]
    for route in ROUTES:
        types += [kind for kind in (route.answer, route.body) if kind is not None]
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    reference = dict(zip(types, schemas, strict=True))
    paths: dict[str, Any] = {}
    for route in ROUTES:
        operation = paths.setdefault(PREFIX + route.path, {})
        operation[route.method.lower()] = _operation(route, reference)
    return {
        "openapi": OPENAPI,
        "info": {
            "title": "Interest tracker",
            "version": version,
            "description": "Interests and recommendations of users, from their events in Kafka.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def path_names(path: str) -> list[str]:
    """Return the names of the parameters in a path."""
    return re.findall(r"{(\w+)}", path)


def _operation(route: Route, reference: dict[Any, Any]) -> dict[str, Any]:
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES},
        }
        for name in path_names(route.path)
    ]
    parameters += [] if route.query is None else _query_parameters(route.query)
    kind = STREAM_TYPE if route.streams else JSON_TYPE
    content = {"schema": {"type": "string"} if route.streams else reference[route.answer]}
    responses: dict[str, Any] = {
        str(route.status): {"description": route.summary, "content": {kind: content}}
    }
    for status in problem_statuses(route):
        responses[str(status)] = {
            "description": PROBLEMS[status],
            "content": {PROBLEM_TYPE: {"schema": reference[Problem]}},
        }
        if status == 400:  # the server itself refuses a path and query that are too long
            responses["400"]["content"]["text/plain"] = {"schema": {"type": "string"}}
        if status in (429, 503):
            responses[str(status)]["headers"] = {
                "Retry-After": {"schema": {"type": "integer"}, "required": True}
            }
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": parameters,
        "responses": responses,
        "x-scope": route.scope,
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {JSON_TYPE: {"schema": reference[route.body]}},
        }
    return operation


def problem_statuses(route: Route) -> list[int]:
    """Return the statuses of the problems that a route may answer with."""
    statuses = {400, 401, 403, 429, 500, 503}
    if path_names(route.path):
        statuses.add(404)
    if route.owner is not None:
        statuses.add(421)
    if route.body is not None:
        statuses |= {413, 415}
    if route.scope == "write":
        statuses |= {404, 409}
    return sorted(statuses)


def _query_parameters(query: type[msgspec.Struct]) -> list[dict[str, Any]]:
    _, components = msgspec.json.schema_components([query], ref_template="#/{name}")
    properties = components[query.__name__]["properties"]
    required = components[query.__name__].get("required", [])
    parameters = []
    for name, field in properties.items():
        options = field.get("anyOf", [])
        kinds = [option for option in options if option.get("type") != "null"]
        described = kinds[0] if len(kinds) == 1 else field
        described = {key: value for key, value in described.items() if key != "default"}
        if field.get("default") is not None:
            described["default"] = field["default"]
        parameters.append(
            {"name": name, "in": "query", "required": name in required, "schema": described}
        )
    return parameters
