"""The service described as OpenAPI 3.1, from the words that its questions are read with."""

from __future__ import annotations

from typing import Any

import memest
from memest.serve.asking import ESTIMATED, VARIED, schema

_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "object", "properties": {"kind": {"type": "string"}, "message": {"type": "string"}}}},
    "required": ["error"],
}
_REFUSED = {
    "400": "Not HTTP (said as plain text), or not JSON.",
    "408": "The request did not arrive in time.",
    "413": "A body, or a batch, beyond the limit.",
    "415": "A body that is compressed.",
    "422": "A question that cannot be answered; the message names what is wrong.",
    "500": "A bug.",
    "503": "Too many connections (said as plain text), too much to do, or it takes too long.",
}


def openapi() -> dict[str, Any]:
    """The whole description."""
    question, fit = (schema(own) for own in (ESTIMATED, VARIED))
    answer = {"type": "object", "description": "What memest.estimate(…).to_dict() says."}
    batch = {
        "type": "object",
        "properties": {
            "questions": {"type": "array", "items": {"type": "object"}, "description": "Each a Question, less what is common."},
            "common": {"type": "object", "description": "Words that all of them share; a question's own come first."},
        },
        "required": ["questions"],
        "additionalProperties": False,
    }
    answers = {
        "type": "object",
        "properties": {"answers": {"type": "array", "items": {"anyOf": [_ref("Answer"), _ref("Error")]}}},
        "required": ["answers"],
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "memest", "version": memest.__version__, "description": "The memory of a CNN's step, before anything runs."},
        "paths": {
            "/estimate": _post("The memory of one step.", "Question", "Answer"),
            "/batch": _post("Many questions, answered in order, each with its answer or its error.", "Batch", "Answers"),
            "/fit": _post("The largest sizes that fit.", "Fit", "Answer"),
            "/models": _get("The built-in models.", "application/json"),
            "/openapi.json": _get("This description.", "application/json"),
            "/metrics": _get("Counters for Prometheus.", "text/plain"),
            "/healthz": _get("Whether it is there.", "application/json"),
        },
        "components": {
            "schemas": {"Question": question, "Fit": fit, "Batch": batch, "Answer": answer, "Answers": answers, "Error": _ERROR}
        },
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _post(summary: str, takes: str, gives: str) -> dict[str, Any]:
    refused = {status: {"description": why, **_content(_ref("Error"))} for status, why in _REFUSED.items()}
    body = {"required": True, **_content(_ref(takes))}
    return {
        "post": {
            "summary": summary,
            "requestBody": body,
            "responses": {"200": {"description": summary, **_content(_ref(gives))}, **refused},
        }
    }


def _get(summary: str, kind: str) -> dict[str, Any]:
    return {"get": {"summary": summary, "responses": {"200": {"description": summary, "content": {kind: {}}}}}}
