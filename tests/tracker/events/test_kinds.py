"""Weights of kinds of event and the curves of their values."""

from pathlib import Path

import pytest

from tracker.events.kinds import (
    DEFAULT_KINDS,
    Kinds,
    KindsFileError,
    QuantityError,
    UnknownKindError,
)


def write(path: Path, text: str) -> Path:
    file = path / "weights.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_refusal_is_negative_and_a_purchase_weighs_more_than_a_view() -> None:
    kinds = Kinds.default()
    assert kinds.weight("hide", None) < 0 < kinds.weight("view", None)
    assert kinds.weight("purchase", None) > kinds.weight("view", None)


@pytest.mark.parametrize(
    ("value", "weight"), [(0.0, -2.0), (5.0, 0.0), (10.0, 2.0), (12.0, 2.0), (-3.0, -2.0)]
)
def test_a_rating_maps_linearly_over_its_scale_and_is_cut_beyond_it(
    value: float, weight: float
) -> None:
    assert Kinds.default(0.0, 10.0).weight("rate", value) == pytest.approx(weight)


def test_dwell_saturates_and_a_quantity_counts_its_logarithm_up_to_a_bound() -> None:
    kinds = Kinds.default()
    assert kinds.weight("dwell", 0.0) == 0.0
    assert kinds.weight("dwell", 120.0) == pytest.approx(0.75)
    assert kinds.weight("dwell", 1e9) == pytest.approx(1.0)
    assert kinds.weight("purchase", 1.0) == pytest.approx(3.0)
    assert kinds.weight("purchase", 1e6) == pytest.approx(12.0)


def test_an_unknown_kind_is_refused_by_name_or_gets_the_default_weight(tmp_path: Path) -> None:
    with pytest.raises(UnknownKindError, match="'ogle'"):
        Kinds.default().weight("ogle", None)
    assert Kinds.load(write(tmp_path, "unknown = 0.25")).weight("ogle", None) == 0.25


def test_a_file_changes_single_weights_and_keeps_their_curves(tmp_path: Path) -> None:
    kinds = Kinds.load(
        write(
            tmp_path,
            "[kinds]\nrate = 4.0\nswipe = {weight = -1.0}\nstay = {weight = 1.0, curve = 'dwell'}",
        ),
        0.0,
        10.0,
    )
    assert kinds.weight("rate", 10.0) == 4.0
    assert kinds.weight("swipe", None) == -1.0
    assert kinds.weight("stay", 60.0) == pytest.approx(0.5)
    assert kinds.weight("view", None) == DEFAULT_KINDS["view"].weight


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "kinds.toml"
    path.write_text("[kinds]\nview = 0.7\n", encoding="utf-8-sig")
    assert Kinds.load(path).weight("view", None) == 0.7


def test_replace_drops_the_built_in_kinds(tmp_path: Path) -> None:
    kinds = Kinds.load(write(tmp_path, "replace = true\n[kinds]\nview = 1.0"))
    assert set(kinds.table) == {"view"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[kinds]\nview = 'much'", "kinds"),
        ("[kind]\nview = 1.0", "unknown field"),
        ("[kinds]\nview = inf", "kinds.view: the weight is inf; a number from -1000 to 1000"),
        ("[kinds]\nview = -1e39", "kinds.view: the weight is -1e[+]39; a number from -1000"),
        ("[kinds]\nview = {weight = 1001}", "kinds.view: the weight is 1001; a number"),
        ("unknown = nan", "unknown: the weight is nan; a number from -1000 to 1000"),
        ("unknown = 1e39", "unknown: the weight is 1e[+]39; a number from -1000 to 1000"),
        ("[kinds", "not TOML"),
        ("[kinds]\nview = {weight = 1.0, curve = 'steep'}", "curve"),
    ],
)
def test_a_broken_file_is_refused_with_its_name_and_the_cause(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(KindsFileError, match=message) as caught:
        Kinds.load(write(tmp_path, text))
    assert "weights.toml" in str(caught.value)


def test_a_missing_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(KindsFileError, match=r"none\.toml: cannot be read"):
        Kinds.load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("kind", "value", "counts_as", "weight"),
    [
        ("purchase", -1.0, ("return", 1.0), -2.0),
        ("purchase", -7.0, ("return", 7.0), -2.0),
        ("cart", -1.0, ("remove_from_cart", 1.0), -0.5),
        ("purchase", 0.0, ("purchase", 0.0), 0.0),
        ("view", -1.0, ("view", -1.0), 0.3),
    ],
)
def test_a_negative_quantity_is_a_return(
    kind: str, value: float, counts_as: tuple[str, float], weight: float
) -> None:
    kinds = Kinds.default()
    assert kinds.effective(kind, value) == counts_as
    assert kinds.weight(kind, value) == pytest.approx(weight)


def test_a_negative_quantity_is_refused_where_nothing_takes_back(tmp_path: Path) -> None:
    kinds = Kinds.load(write(tmp_path, "replace = true\n[kinds]\npurchase = 3.0"))
    with pytest.raises(QuantityError, match=r"'purchase' with the quantity -1: .*'return'"):
        kinds.weight("purchase", -1.0)


def test_the_quantity_of_a_kind_that_takes_back_has_no_sign(tmp_path: Path) -> None:
    text = "[kinds]\nreturn = {weight = -2.0, curve = 'quantity'}"
    kinds = Kinds.load(write(tmp_path, text))
    assert kinds.weight("return", -2.0) == kinds.weight("return", 2.0) == -4.0
    assert kinds.weight("purchase", -2.0) == -4.0


def test_a_rating_of_minus_one_is_no_rating_unless_the_scale_holds_it() -> None:
    assert Kinds.default(1.0, 5.0).weight("rate", -1.0) == 0.0
    assert Kinds.default(0.0, 1.0).weight("rate", -1.0) == 0.0
    assert Kinds.default(-1.0, 1.0).weight("rate", -1.0) == -2.0
    assert Kinds.default(1.0, 5.0).weight("rate", -2.0) == -2.0


@pytest.mark.parametrize("text", ["a = " + "[" * 3000, "[kinds]\nview = " + "9" * 5000])
def test_a_file_too_deep_or_with_too_long_a_number_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "kinds.toml").write_text(text)
    with pytest.raises(KindsFileError, match=r"kinds\.toml: not TOML"):
        Kinds.load(tmp_path / "kinds.toml")
