"""Strict JSON: everything two parsers could read differently is refused, everything else passes unchanged."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from headrace_api.strict_json import MAX_DEPTH, MAX_NODES, SHALLOW, MalformedJson, load

REFUSED: dict[str, tuple[bytes, str, str]] = {
    "NaN": (b'{"a": NaN}', "", "NaN at byte 6 is not a number"),
    "Infinity": (b'{"a": Infinity}', "", "Infinity at byte 6"),
    "minus Infinity": (b'{"a": -Infinity}', "", "not a number"),
    "a float beyond all floats": (b'{"a": 1e999}', "", "too large"),
    "a small exponent's opposite": (b'{"a": -1e400}', "", "too large"),
    "5,000 digits": (b'{"a": ' + b"9" * 5000 + b"}", "", "too large"),
    "65 bits": (b'{"a": [1, 18446744073709551616]}', "/a/1", "more than 64 bits"),
    "65 bits below zero": (b'{"a": {"b": -9223372036854775809}}', "/a/b", "more than 64 bits"),
    "a key twice": (b'{"a": 1, "b": 2, "a": 1}', "/a", "occurs twice"),
    "a key twice, deep inside": (b'{"a": [{"b": {"c": 1, "c": {}}}]}', "/a/0/b/c", "occurs twice"),
    "a key twice, once escaped": (b'{"a": 1, "\\u0061": 2}', "/a", "occurs twice"),
    "an empty key twice": (b'{"": 1, "": 1}', "/", "occurs twice"),
    "a key twice, deeper than is seen in reading": (
        b"[" * SHALLOW + b'{"a": 1, "a": 1}' + b"]" * SHALLOW,
        "/0" * SHALLOW + "/a",
        "occurs twice",
    ),
    "65 bits, deeper than is seen in reading": (
        b"[" * SHALLOW + b"[18446744073709551616]" + b"]" * SHALLOW,
        "/0" * (SHALLOW + 1),
        "more than 64 bits",
    ),
    "a key twice with quotes to hide it": (b'{"a": 1, "a": "\\u0022\\u0022"}', "/a", "occurs twice"),
    "a key twice with spaces": (b'{"a" :1 , "a"\t:\n2}', "/a", "occurs twice"),
    "a key twice whose name needs escapes": (b'{"a/~b": 1, "a/~b": 2}', "/a~1~0b", "occurs twice"),
    "half a character": (b'{"a": "\\ud83d"}', "", "lone surrogate"),
    "the other half": (b'{"a": "\\ude00 "}', "", "lone surrogate"),
    "half a character in a key": (b'{"\\ud83d": 1}', "", "lone surrogate"),
    "two first halves": (b'{"a": "\\ud83d\\ud83d"}', "", "lone surrogate"),
    "2,000 arrays deep": (b'{"a": ' + b"[" * 2000 + b"]" * 2000 + b"}", "", "nested"),
    "one level too deep": (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "", "nested"),
    "one object too deep": (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "", "nested"),
    "one value too many": (b"[" + b"1," * (MAX_NODES - 1) + b"1]", "", "values"),
    "bytes that are no UTF-8": (b'{"a": "\xff"}', "", "not UTF-8 (byte 7)"),
    "an overlong encoding": (b'{"a": "\xc0\xaf"}', "", "not UTF-8"),
    "a surrogate encoded as UTF-8": (b'{"a": "\xed\xa0\x80"}', "", "not UTF-8"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "", "not UTF-8"),
    "a byte order mark": (b'\xef\xbb\xbf{"a": 1}', "", "byte order mark"),
    "nothing": (b"", "", "empty"),
    "white space": (b" \n", "", "empty"),
    "half a document": (b'{"a": [1, ', "", "too early"),
    "two documents": (b'{"a": 1} {"a": 2}', "", "trailing characters"),
    "a trailing comma": (b'{"a": 1,}', "", "byte 8"),
    "single quotes": (b"{'a': 1}", "", "byte 1"),
    "a comment": (b'{"a": 1 /* x */}', "", "byte 8"),
    "a raw newline in a text": (b'{"a": "x\ny"}', "", "byte 8"),
    "a raw zero byte": (b'{"a": "x\x00y"}', "", "byte 8"),
    "a leading zero": (b'{"a": 01}', "", "byte"),
    "a hexadecimal number": (b'{"a": 0x10}', "", "byte"),
    "a lonely sign": (b'{"a": -}', "", "byte"),
    "an unknown escape": (b'{"a": "\\x41"}', "", "byte"),
}

ACCEPTED: dict[str, bytes] = {
    "the largest integers": b'{"a": [9223372036854775807, 18446744073709551615, -9223372036854775808]}',
    "2^53 + 1": b'{"a": 9007199254740993}',
    "an empty array beside an empty object": b'{"a": [], "b": {}, "c": ""}',
    "a whole character from two escapes": b'{"a": "\\ud83d\\ude00"}',
    "an escaped quote": b'{"a": "say \\"a\\"", "b": "\\u0022"}',
    "a backslash before u0022": b'{"a": "\\\\u0022", "b": 1}',
    "an escaped solidus": b'{"a\\/b": "\\/"}',
    "a text that looks like a key": b'{"a": "\\"a\\":", "b": ":\\"a\\":1"}',
    "numbers written oddly": b'{"a": [1.0, 1.50, 1E5, -0, -0.0, 1e-400]}',
    "an escaped zero": b'{"a": "\\u0000"}',
    "the same key in different objects": b'{"a": {"a": {"a": [{"a": 1}, {"a": 2}]}}}',
    "the deepest that is seen in reading": b'{"a":' * SHALLOW + b"1" + b"}" * SHALLOW,
    "one level deeper": b'{"a": [' * (SHALLOW // 2) + b'{"b": [1.5, null, true, "x"]}' + b"]}" * (SHALLOW // 2),
    "the deepest that may be": b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
    "the most values that may be": b"[" + b"1," * (MAX_NODES - 2) + b"1]",
    "many brackets in a text": b'{"a": "' + b"[{" * 20_000 + b'"}',
    "a document that is no object": b'"text"',
    "a bare number": b" 5 ",
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_place_and_reason(name: str) -> None:
    """Each trap is refused by an error that names the place, where one can be named, and says what is wrong."""
    body, pointer, reason = REFUSED[name]
    with pytest.raises(MalformedJson) as caught:
        load(body)
    [error] = caught.value.errors
    assert error.pointer == pointer
    assert reason in error.detail
    assert error.hint, "it says what to do"


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted_and_read_alike(name: str) -> None:
    """What is only unusual passes, and reads as the standard library reads it."""
    assert load(ACCEPTED[name]) == json.loads(ACCEPTED[name])


def test_a_refusal_repeats_only_the_beginning_of_a_long_key() -> None:
    """A client's own 50,000 characters do not come back in the answer."""
    key = b"k" * 50_000
    with pytest.raises(MalformedJson) as caught:
        load(b'{"' + key + b'": 1, "' + key + b'": 2}')
    assert len(str(caught.value)) < 300


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, width=32)
documents = st.recursive(
    (scalars | texts).filter(lambda value: value not in (float("inf"), float("-inf"))),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
styles = st.fixed_dictionaries(
    {"ensure_ascii": st.booleans(), "indent": st.none() | st.integers(0, 3), "sort_keys": st.booleans()}
)


@given(documents, styles)
def test_any_honest_document_passes(document: Any, style: dict[str, Any]) -> None:
    """Whatever the standard library can write of plain values is accepted, in every style of writing."""
    assert load(json.dumps(document, **style).encode()) == document


def _double(value: Any, style: dict[str, Any]) -> str | None:
    """The document with the first member of its first object that has one written twice."""
    if isinstance(value, dict) and value:
        members = [f"{json.dumps(k, **style)}: {json.dumps(v, **style)}" for k, v in value.items()]
        return "{" + ", ".join([*members, members[0]]) + "}"
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        if (inner := _double(child, style)) is not None:
            rest = {**value, key: "\0"} if isinstance(value, dict) else [*value[:key], "\0", *value[key + 1 :]]
            return json.dumps(rest).replace('"\\u0000"', inner, 1)
    return None


@given(documents, styles)
def test_any_double_key_is_refused(document: Any, style: dict[str, Any]) -> None:
    """Written twice, a member is refused, whatever else stands in the document."""
    text = _double(document, style)
    assume(text is not None and "\0" not in repr(document))
    assert text is not None
    with pytest.raises(MalformedJson, match="occurs twice"):
        load(text.encode())


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,\\u0123dDeE.-+ntf', max_size=60).map(str.encode))
def test_no_bytes_cause_any_other_error(body: bytes) -> None:
    """Random bytes are read or refused; nothing else comes out."""
    try:
        load(body)
    except MalformedJson as error:
        assert str(error).endswith(".")
