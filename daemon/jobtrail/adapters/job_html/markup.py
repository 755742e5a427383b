"""Writes elements. Text and attributes are escaped here and nowhere else, so nothing can be forgotten."""

from __future__ import annotations

import html


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | None
_EMPTY = frozenset({"meta", "br", "col", "line", "path", "rect"})  # closed in themselves, so that it is XML as well


def text(value: object) -> Markup:
    """Any value as text: markup in it is shown, and control characters, which HTML has no place for, are escaped."""
    plain = "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode() for ch in str(value))
    return Markup(html.escape(plain))


def join(*children: Child) -> Markup:
    """Children one after the other; what is not markup is text."""
    return Markup("".join(one if isinstance(one, Markup) else text(one) for one in children if one is not None))


def el(tag: str, /, *children: Child, **attributes: object) -> Markup:
    """An element. `class_` is `class`, `_` in other names is `-`; an attribute that is None is left out."""
    given = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None)
    written = "".join(f' {key}="{text(value)}"' for key, value in given)
    if tag in _EMPTY:
        return Markup(f"<{tag}{written}/>")
    return Markup(f"<{tag}{written}>{join(*children)}</{tag}>")
