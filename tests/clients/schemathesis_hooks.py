"""What schemathesis has to be told of the broker beyond deploy/openapi.yaml."""

import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(_context, value):
    """A line for each element; what is no list becomes a line that is no event."""
    elements = value if isinstance(value, list) else [[value]]
    return "\n".join(json.dumps(element) for element in elements).encode()


@schemathesis.hook
def map_case(_context, case):
    """The query is the event only where the body is not it; otherwise nothing in it can be wrong."""
    if case.operation.label == "POST /api/v1/events/broadcast" and case.media_type:
        case.query = {}
    return case


@schemathesis.hook
def map_body(_context, body):
    """Whole numbers are written without a point, which to JSON Schema is all the same, but not to the broker."""
    if isinstance(body, dict):
        return {key: map_body(_context, value) for key, value in body.items()}
    if isinstance(body, list):
        return [map_body(_context, value) for value in body]
    return int(body) if isinstance(body, float) and body.is_integer() else body
