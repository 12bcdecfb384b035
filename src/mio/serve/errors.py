"""Errors as OpenAI's clients read them. A message says what came and what to do, never an address or a path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mio.types import DataError, MioError, MissingError

TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    421: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


class ApiError(MioError):
    """An answer other than 200. `param`: the field that is wrong; `code`: for programs; `retry_after` in seconds."""

    def __init__(
        self, what: str, *, status: int = 400, param: str = "", code: str = "invalid_value", retry_after: int = 0
    ) -> None:
        super().__init__(what, at=param)
        self.status, self.param, self.label, self.retry_after = status, param, code, retry_after

    def body(self) -> dict[str, Any]:
        error = {"message": str(self), "type": TYPES[self.status], "param": self.param or None, "code": self.label}
        return {"error": error}

    def headers(self) -> dict[str, str]:
        return {"retry-after": str(self.retry_after)} if self.retry_after else {}


def as_api_error(error: BaseException) -> ApiError:
    """What a client is told. Words of our own pass, those of libraries and the places of files do not."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, MioError) and not isinstance(error, MissingError):
        code = "invalid_media" if isinstance(error, DataError) else "invalid_value"
        return ApiError(f"{error} {error.fix}".strip(), code=code)
    return ApiError("The server failed to answer this request.", status=500, code="engine_error")


def unsupported(param: str, what: str = "") -> ApiError:
    message = what or f"This server does not support {param!r}."
    return ApiError(message, param=param, code="unsupported_parameter")
