"""Errors as Huawei Cloud's services and the gateway before them write them: one code and one text of many shapes.

It knows no call: what an error means for one is said by codearts.py and iam.py.
"""

from bridge.protocols.http_response import Json, read_json


def read_error(value: Json) -> tuple[str, str]:
    """Return code and message of an error in any of the shapes met; empty where there is none.

    `{"error_code", "error_msg"}`, `{"error": {"code", "message" | "reason"}}` (IAM's code is a number), and a JSON
    string, which may hold another of these.
    """
    if isinstance(value, str):
        inner = read_json(value.encode("utf-8", "replace"))
        return read_error(inner) if isinstance(inner, dict) else ("", value)
    if not isinstance(value, dict):
        return "", ""
    error = value.get("error")
    nested = error if isinstance(error, dict) else {"message": error}
    code = _first(value.get("error_code"), nested.get("code"), nested.get("error_code"))
    text = _first(value.get("error_msg"), nested.get("message"), nested.get("reason"), nested.get("error_msg"))
    return code, text


def _first(*values: object) -> str:
    return next((value for value in values if isinstance(value, str) and value), "")
