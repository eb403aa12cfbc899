"""Tree functions: laws on random trees, hand-written cases, and the same calls on MLX."""

from __future__ import annotations

from collections import namedtuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot import utils

Pair = namedtuple("Pair", "x y")

keys = st.text("abcxyz_", min_size=1, max_size=3)
full_trees = st.recursive(
    st.integers(0, 9) | st.booleans(),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3) | st.dictionaries(keys, inner, min_size=1, max_size=3)
    ),
    max_leaves=12,
)
trees = st.recursive(
    st.integers(0, 9) | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.builds(Pair, inner, inner)
        | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=12,
)


@given(full_trees)
def test_unflatten_inverts_flatten(tree):
    flat = utils.tree_flatten(tree)
    assert utils.tree_unflatten(flat) == tree
    assert utils.tree_unflatten(utils.tree_flatten(tree, destination={})) == tree


@given(trees)
def test_map_keeps_structure_and_order(tree):
    seen, named = [], []
    assert utils.tree_map(lambda leaf: seen.append(leaf) or leaf, tree) == tree
    utils.tree_map_with_path(lambda path, leaf: named.append((path or "", leaf)), tree)
    assert named == utils.tree_flatten(tree)
    assert seen == [leaf for _, leaf in named]


@given(trees)
def test_reduce_visits_all_leaves_in_order(tree):
    leaves = [leaf for _, leaf in utils.tree_flatten(tree)]
    assert utils.tree_reduce(lambda seen, leaf: [*seen, leaf], tree, [0]) == [0, *leaves]


@given(full_trees)
def test_merge_of_disjoint_halves_is_the_whole(tree):
    flat = utils.tree_flatten(tree)
    if flat[0][0] == "":
        return
    even, odd = flat[::2], flat[1::2]
    merged = utils.tree_merge(_sparse(tree, even), _sparse(tree, odd))
    assert merged == tree


def _sparse(tree, kept):
    """`tree` with None in place of the leaves that are not in `kept`."""
    paths = {path for path, _ in kept}
    return utils.tree_map_with_path(lambda path, leaf: leaf if path in paths else None, tree)


def test_paths_and_prefix():
    assert utils.tree_flatten({"a": [1, {"b": 3}], "c": {}}) == [("a.0", 1), ("a.1.b", 3)]
    assert utils.tree_flatten([[[0]]], prefix=".hello") == [("hello.0.0.0", 0)]
    assert utils.tree_flatten(5) == [("", 5)]


def test_destination_is_filled_and_returned():
    out: dict = {"kept": 0}
    assert utils.tree_flatten({"a": [1]}, destination=out) is out
    assert out == {"kept": 0, "a.0": 1}
    with pytest.raises(ValueError, match=r"\[tree_flatten\] destination"):
        utils.tree_flatten([1], destination=())


def test_unflatten_fills_missing_indices_and_refuses_duplicates():
    assert utils.tree_unflatten([("2", "c"), ("0", "a")]) == ["a", {}, "c"]
    assert utils.tree_unflatten([("0", 1), ("a", 2)]) == {"0": 1, "a": 2}
    assert utils.tree_unflatten([]) == []
    with pytest.raises(ValueError, match="'a.b' is given twice"):
        utils.tree_unflatten([("a.b", 1), ("a.b", 2)])


def test_map_over_several_trees():
    assert utils.tree_map(lambda a, b: a + b, {"x": [1, 2]}, {"x": [10, 20, 30], "y": 0}) == {"x": [11, 22]}
    assert utils.tree_map(lambda a: a + 1, Pair(1, [2])) == Pair(2, [3])
    with pytest.raises(KeyError):
        utils.tree_map(lambda a, b: a, {"x": 1}, {})
    with pytest.raises(IndexError):
        utils.tree_map(lambda a, b: a, [1, 2], [1])


def test_merge_conflicts():
    assert utils.tree_merge({"a": 1}, {"a": 2}, lambda a, b: a + b) == {"a": 3}
    with pytest.raises(ValueError, match="leaf at the same place"):
        utils.tree_merge({"a": 1}, {"a": 2})
    with pytest.raises(ValueError, match="empty list with dict"):
        utils.tree_merge([], {})


@pytest.mark.peers
@settings(max_examples=300)
@given(trees, trees)
def test_agrees_with_mlx(a, b):
    theirs = pytest.importorskip("mlx.utils")

    def outcome(module, call):
        try:
            return call(module)
        except Exception as error:
            return type(error)

    calls = [
        lambda m: m.tree_flatten(a),
        lambda m: m.tree_flatten(a, prefix=".p", is_leaf=lambda t: isinstance(t, list), destination={}),
        lambda m: m.tree_unflatten(m.tree_flatten(a)),
        lambda m: m.tree_map(lambda x: (x, 1), a, is_leaf=lambda t: isinstance(t, dict)),
        lambda m: m.tree_map(lambda x, y: (x, y), a, b),
        lambda m: m.tree_map_with_path(lambda p, x: (p, x), a, path="root"),
        lambda m: m.tree_map_with_path(lambda p, x: (p, x), a),
        lambda m: m.tree_reduce(lambda acc, x: [acc, x], a),
        lambda m: m.tree_merge(a, b),
        lambda m: m.tree_merge(a, b, lambda x, y: [x, y]),
    ]
    for call in calls:
        assert outcome(utils, call) == outcome(theirs, call)
