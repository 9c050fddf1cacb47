"""Whatever a server is sent, it answers with a status of its own choice, and never fails."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kerastoolkit import serving

N_BODIES = int(os.environ.get("KERASTOOLKIT_TEST_BODIES", "400"))
GOOD = {"age": 40, "income (k)": 50.5, "plan": "basic"}

odd_numbers = st.sampled_from([0, -1, 1e38, 3.5e38, 1e39, 10**30, 2**63, -0.0, 5e-324])
values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | odd_numbers | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from([*GOOD, "Age", "X", "a", "b", "c", "text", "image", "rows", ""])
# Rows that are right but for a value or a name, which reach further than what is nonsense throughout.
rows = st.builds(lambda name, value: {**GOOD, name: value}, names, values) | st.dictionaries(names, values)
tensors = st.fixed_dictionaries(
    {
        "name": names,
        "shape": st.lists(st.integers(-1, 3) | st.just(2**62), max_size=4),
        "datatype": st.sampled_from(["FP32", "BYTES", "INT64", "BOOL", "no"]),
        "data": st.lists(values, max_size=4),
    }
)
keys = st.sampled_from(["rows", "instances", "inputs"])
bodies = (
    st.builds(
        lambda key, given: {key: given}, st.sampled_from(["rows", "instances", "inputs"]), st.lists(rows | values)
    )
    | st.builds(lambda given: {"inputs": given}, st.dictionaries(names, values) | st.lists(tensors, max_size=4))
    | st.lists(rows | values, max_size=4)
    | values
)
PATHS = ("/predict", "/v1/models/model:predict", "/v2/models/model/infer")


@pytest.fixture(scope="module")
def applications(files: dict[str, Path]) -> list[Any]:
    return [serving.app(files[name], max_rows=4) for name in ("churn", "image", "numbers", "text")]


@settings(max_examples=N_BODIES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(content=bodies, which=st.integers(0, 3), path=st.sampled_from(PATHS), damage=st.none() | st.integers(0, 10**6))
def test_random_json(
    ask: Callable[..., Any], applications: list[Any], content: Any, which: int, path: str, damage: int | None
) -> None:
    body = json.dumps(content).encode()
    if damage is not None:
        place = damage % len(body)
        body = body[:place] + bytes([damage % 256]) + body[place + 1 :]
    check(ask(applications[which], path, body))


@settings(max_examples=N_BODIES // 4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(body=st.binary(max_size=200), which=st.integers(0, 3), path=st.sampled_from(PATHS))
def test_random_bytes(ask: Callable[..., Any], applications: list[Any], body: bytes, which: int, path: str) -> None:
    check(ask(applications[which], path, body))


def check(answer: Any) -> None:
    assert answer.status in (200, 422), answer
    if answer.status == 200:
        # JSON, and no NaN or Infinity in it
        json.loads(answer.body, parse_constant=lambda name: pytest.fail(name))
    else:
        assert answer.error
        answer.body.decode("ascii")
