"""Parameters: the flat vector, its named views, and the layout that says where each name lies."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.backend import get_xp, to_device, to_host
from stg_np.params import Entry, Layout, Params, Role, named

ROLES: tuple[Role, ...] = get_args(Role)

names = st.sampled_from(
    [f"{prefix}{field}" for prefix in ("stm1", "stm2", "norm", "head") for field in ("", ".W", ".b")]
)
shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
layouts = st.lists(
    st.builds(Entry, names, shapes, st.sampled_from(ROLES)), min_size=1, max_size=6, unique_by=lambda entry: entry.name
).map(lambda entries: Layout(tuple(entries)))
dtypes = st.sampled_from(["float32", "float64"])


class Dense(NamedTuple):
    """A layer's parameters; a layer without a bias has None there."""

    W: Any
    b: Any


def random_arrays(layout: Layout, device: str, dtype: str = "float64", seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: to_device(rng.standard_normal(shape).astype(dtype), device) for name, shape in layout.shapes.items()}


def packed(arrays: dict[str, Any], *roles: Role) -> Params:
    """Arrays laid out in their own order."""
    entries = (Entry(name, array.shape, role) for (name, array), role in zip(arrays.items(), roles))
    return Params.pack(Layout(tuple(entries)), arrays)


@pytest.fixture
def params(device: str) -> Params:
    arrays = {
        "one.W": np.arange(6.0).reshape(2, 3),
        "one.b": np.array([10.0, 11.0, 12.0]),
        "two.W": np.full((3, 1), 20.0),
        "scale": np.array(30.0),
    }
    return packed(
        {name: to_device(array, device) for name, array in arrays.items()}, "matrix", "vector", "head", "frozen"
    )


# --- Layout ----------------------------------------------------------------------------------------------------


@given(layout=layouts)
def test_the_slices_tile_the_vector_in_order(layout: Layout) -> None:
    position = 0
    for entry in layout.entries:
        piece = layout.slices[entry.name]
        assert piece.start == position
        assert piece.stop - piece.start == np.prod(entry.shape, dtype=int)
        position = piece.stop
    assert position == layout.size
    assert list(layout.shapes) == list(layout.slices) == [entry.name for entry in layout.entries]


@given(layout=layouts, roles=st.lists(st.sampled_from(ROLES), unique=True))
def test_a_selection_is_a_layout_of_the_entries_of_those_roles_in_order(layout: Layout, roles: list[Role]) -> None:
    chosen = layout.select(*roles)
    assert list(chosen.entries) == [entry for entry in layout.entries if entry.role in roles]
    assert chosen is layout.select(*roles)  # made once
    assert layout.select(*ROLES) == layout


def test_two_parameters_of_one_name_are_refused() -> None:
    entry = Entry("W", (2,), "vector")
    with pytest.raises(ValueError, match="same name"):
        Layout((entry, Entry("b", (), "vector"), entry))


def test_layouts_are_values() -> None:
    one, same, other = (Layout((Entry("W", (2, 3), role),)) for role in ("matrix", "matrix", "head"))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one.size == 6  # computing a cached property changes neither the value nor its hash
    assert one == same
    assert hash(one) == hash(same)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.entries = ()  # type: ignore[misc]


# --- Packing ---------------------------------------------------------------------------------------------------


@given(layout=layouts, dtype=dtypes, seed=st.integers(0, 9))
def test_packing_keeps_every_array(xp: Any, device: str, layout: Layout, dtype: str, seed: int) -> None:
    arrays = random_arrays(layout, device, dtype, seed)
    shuffled = dict(sorted(arrays.items(), reverse=True))  # the layout's order counts, not the mapping's
    params = Params.pack(layout, shuffled)
    assert get_xp(params.flat) is xp
    assert params.flat.shape == (layout.size,)
    assert params.flat.dtype == dtype
    assert list(params) == list(layout.shapes)
    for name, array in arrays.items():
        assert params[name].shape == array.shape
        np.testing.assert_array_equal(to_host(params[name]), to_host(array))


def test_non_contiguous_and_read_only_arrays_are_packed_in_row_order() -> None:
    wide = np.arange(12.0).reshape(3, 4)
    wide.flags.writeable = False
    arrays = {"transposed": wide.T, "strided": wide[::2, ::-1]}
    params = packed(arrays, "matrix", "matrix")
    for name, array in arrays.items():
        np.testing.assert_array_equal(params[name], array)
    params.flat[:] = 0.0  # the vector is the params' own
    assert wide[2, 3] == 11.0


@pytest.mark.parametrize("names_given", [["W"], ["W", "b", "c"], ["W", "c"], []])
def test_missing_and_unknown_names_are_all_named(device: str, names_given: list[str]) -> None:
    layout = Layout((Entry("W", (2,), "matrix"), Entry("b", (2,), "vector")))
    differing = ", ".join(sorted({"W", "b"} ^ set(names_given)))
    arrays = {name: to_device(np.zeros(2), device) for name in names_given}
    with pytest.raises(ValueError, match=f"do not match the layout: {differing}$"):
        Params.pack(layout, arrays)


def test_a_wrong_shape_is_refused_even_of_the_same_size(device: str) -> None:
    layout = Layout((Entry("W", (2, 3), "matrix"),))
    with pytest.raises(ValueError, match=r"W has shape \(3, 2\), the layout says \(2, 3\)"):
        Params.pack(layout, {"W": to_device(np.zeros((3, 2)), device)})


def test_arrays_of_two_libraries_are_refused(stand_in: Any) -> None:
    with pytest.raises(TypeError, match="mixed"):
        packed({"W": np.zeros(2), "b": stand_in.zeros(2)}, "matrix", "vector")


# --- Views -----------------------------------------------------------------------------------------------------


def test_views_and_vector_are_one_memory(params: Params) -> None:
    params["one.b"][1] = -1.0
    assert float(params.flat[7]) == -1.0
    weights = params["one.W"]
    weights *= 2.0
    np.testing.assert_array_equal(to_host(params.flat[:6]), [0, 2, 4, 6, 8, 10])
    params.flat[:] = 5.0
    np.testing.assert_array_equal(to_host(weights), np.full((2, 3), 5.0))
    scale = params["scale"]  # a 0-d view as well
    scale[...] = 7.0
    assert float(params.flat[-1]) == 7.0


def test_names_can_be_asked_for(params: Params) -> None:
    assert list(params) == ["one.W", "one.b", "two.W", "scale"]
    assert "one.b" in params
    assert "one" not in params
    with pytest.raises(KeyError, match=r"two\.b"):
        params["two.b"]


@pytest.mark.parametrize("shape", [(9,), (11,), (2, 5), ()])
def test_a_vector_of_another_length_is_refused(xp: Any, shape: tuple[int, ...]) -> None:
    layout = Layout((Entry("W", (2, 5), "matrix"),))
    with pytest.raises(ValueError, match=r"needs a vector of 10 numbers, got shape \("):
        Params(layout, xp.zeros(shape))


def test_another_vector_under_the_same_layout(params: Params) -> None:
    gradient = params.with_flat(params.flat * 0.0)
    assert gradient.layout is params.layout
    assert float(gradient["one.b"].sum()) == 0.0
    assert float(params["one.b"].sum()) == 33.0


# --- Groups ----------------------------------------------------------------------------------------------------


def test_a_group_is_views_and_none_where_there_is_no_entry(params: Params) -> None:
    one, two = params.group("one", Dense), params.group("two", Dense)
    assert type(one) is Dense
    assert (one.W.shape, one.b.shape) == ((2, 3), (3,))
    assert two.b is None
    two.W[:] = -1.0
    np.testing.assert_array_equal(to_host(params["two.W"]), np.full((3, 1), -1.0))


@given(with_bias=st.booleans(), rows=st.integers(0, 4), columns=st.integers(1, 4))
def test_group_and_named_are_each_others_reverse(device: str, with_bias: bool, rows: int, columns: int) -> None:
    weights = to_device(np.random.default_rng(rows).standard_normal((rows, columns)), device)
    bias = to_device(np.arange(float(columns)), device) if with_bias else None
    arrays = named("layer", Dense(weights, bias))
    assert list(arrays) == (["layer.W", "layer.b"] if with_bias else ["layer.W"])
    group = packed(arrays, "matrix", "vector").group("layer", Dense)
    np.testing.assert_array_equal(to_host(group.W), to_host(weights))
    if with_bias:
        np.testing.assert_array_equal(to_host(group.b), to_host(bias))
    else:
        assert group.b is None
    again = named("layer", group)
    assert again.keys() == arrays.keys()
    for name, array in again.items():
        np.testing.assert_array_equal(to_host(array), to_host(arrays[name]))


def test_nothing_here_waits_for_the_device(stand_in: Any, synchronisations: Any) -> None:
    layout = Layout((Entry("a.W", (2, 3), "matrix"), Entry("a.b", (3,), "vector")))
    arrays = random_arrays(layout, "cuda")
    with synchronisations() as waits:
        params = Params.pack(layout, arrays)
        gradient = Params.pack(layout, named("a", params.group("a", Dense)))
        params.flat[:] -= 0.1 * gradient.flat
        params.replaced(params.select("matrix").arrays())
    assert waits == []


def test_one_vector_has_one_dtype() -> None:
    with pytest.raises(ValueError, match="float32, float64"):
        packed({"W": np.ones((2, 2), np.float32), "b": np.ones(2, np.float64)}, "matrix", "vector")


def test_a_mistyped_prefix_is_no_group_of_nones() -> None:
    params = packed({"one.W": np.ones((2, 2))}, "matrix")
    with pytest.raises(KeyError, match=r"stm9\.…: the layout has one\.W"):
        params.group("stm9", Dense)


# --- Roles -----------------------------------------------------------------------------------------------------


@given(layout=layouts, dtype=dtypes, roles=st.lists(st.sampled_from(ROLES), unique=True))
def test_entries_of_some_roles_are_a_copy_under_their_own_layout(
    xp: Any, device: str, layout: Layout, dtype: str, roles: list[Role]
) -> None:
    params = Params.pack(layout, random_arrays(layout, device, dtype))
    part = params.select(*roles)
    assert part.layout is layout.select(*roles)
    assert get_xp(part.flat) is xp
    assert part.flat.dtype == dtype
    for name in part:
        np.testing.assert_array_equal(to_host(part[name]), to_host(params[name]))
    before = to_host(params.flat).copy()
    part.flat[:] = 7.0
    np.testing.assert_array_equal(to_host(params.flat), before)


@given(layout=layouts, dtype=dtypes, roles=st.lists(st.sampled_from(ROLES), unique=True))
def test_what_is_replaced_is_new_and_the_rest_is_as_it_was(
    device: str, layout: Layout, dtype: str, roles: list[Role]
) -> None:
    params = Params.pack(layout, random_arrays(layout, device, dtype))
    before = to_host(params.flat).copy()
    part = params.select(*roles)
    after = params.replaced(part.with_flat(part.flat * 2.0 + 1.0).arrays())
    assert after.layout is layout
    assert after.flat.dtype == dtype
    for name, _, role in layout.entries:
        wanted = 2.0 * to_host(params[name]) + 1.0 if role in roles else to_host(params[name])
        np.testing.assert_allclose(to_host(after[name]), wanted, rtol=1e-6)
    np.testing.assert_array_equal(to_host(params.flat), before)
    after.flat[:] = 7.0
    np.testing.assert_array_equal(to_host(params.flat), before)


def test_a_replacement_needs_the_length_not_the_shape(params: Params) -> None:
    xp = get_xp(params.flat)
    after = params.replaced({"one.W": xp.zeros((3, 2))})
    assert after["one.W"].shape == (2, 3)
    with pytest.raises(ValueError, match="needs a vector of 13 numbers"):
        params.replaced({"one.W": xp.zeros((3, 3))})


@pytest.mark.parametrize("place", range(4))
def test_one_wrong_array_is_found_wherever_it_is(place: int) -> None:
    layout = Layout(tuple(Entry(name, (2,), "vector") for name in "abcd"))
    arrays = {name: np.zeros(2) for name in "abcd"}
    wrong = "abcd"[place]
    with pytest.raises(ValueError, match=rf"{wrong} has shape \(1,\), the layout says \(2,\)"):
        Params.pack(layout, {**arrays, wrong: np.zeros(1)})
    with pytest.raises(ValueError, match="one vector has one dtype, but these parameters have float32, float64"):
        Params.pack(layout, {**arrays, wrong: np.zeros(2, np.float32)})


def test_three_dtypes_are_refused_like_two() -> None:
    layout = Layout(tuple(Entry(name, (2,), "vector") for name in "abc"))
    with pytest.raises(ValueError, match="these parameters have float16, float32, float64"):
        Params.pack(layout, {name: np.zeros(2, dtype) for name, dtype in zip("abc", ("float16", "float32", "float64"))})


class Three(NamedTuple):
    """A group with three fields."""

    W: Any
    b: Any
    scale: Any


@pytest.mark.parametrize("field", Three._fields)
def test_one_field_makes_a_group(field: str) -> None:
    params = Params(Layout((Entry(f"norm.{field}", (2,), "vector"),)), np.ones(2))
    group = params.group("norm", Three)
    assert [name for name, array in group._asdict().items() if array is not None] == [field]
