"""Plain dictionaries <-> configs: kinds, nesting, and every refusal with the full name of the place."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from stereo_sashimi.schema import check_type, from_plain, to_plain


@dataclass(frozen=True)
class Apple:
    kind: ClassVar[str] = "apple"
    weight: int = 1


@dataclass(frozen=True)
class Pear:
    kind: ClassVar[str] = "pear"
    length: int
    marks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Basket:
    owner: str
    fruit: Apple | Pear = field(default_factory=Apple, metadata={"classes": (Apple, Pear)})


def test_kind_is_written_where_a_class_has_one():
    assert to_plain(Apple(3)) == {"kind": "apple", "weight": 3}
    assert to_plain(Basket("me", Pear(2, (1, 2)))) == {
        "owner": "me",
        "fruit": {"kind": "pear", "length": 2, "marks": [1, 2]},
    }


@pytest.mark.parametrize("basket", [Basket("a"), Basket("b", Apple(9)), Basket("c", Pear(4))], ids=str)
def test_nested_configs_come_back(basket):
    plain = to_plain(basket)
    again = from_plain(plain, (Basket,), "basket")
    assert again.owner == basket.owner
    assert type(again.fruit) is type(basket.fruit)
    assert to_plain(again) == plain


def test_kind_may_be_left_out_if_there_is_one_choice():
    assert from_plain({"weight": 2}, (Apple,), "fruit") == Apple(2)
    with pytest.raises(ValueError, match=r"fruit\.kind must be one of apple, pear; got None"):
        from_plain({"weight": 2}, (Apple, Pear), "fruit")


def test_the_given_dictionary_is_not_changed():
    plain = to_plain(Basket("me"))
    from_plain(plain, (Basket,), "basket")
    assert plain == to_plain(Basket("me"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "basket must be a mapping of fields; got NoneType"),
        ([1], "basket must be a mapping of fields; got list"),
        ({}, "basket lacks the field 'owner'; it is required for Basket"),
        ({"owner": "me", "kind": "box"}, r"basket\.kind must be one of Basket; got 'box'"),
        ({"owner": "me", "fruits": {}}, r"Unknown key basket\.fruits\. Did you mean basket\.fruit\?"),
        ({"owner": "me", "zzz": 1}, r"Unknown key basket\.zzz\. Allowed: owner, fruit\."),
        ({"owner": "me", "fruit": 3}, r"basket\.fruit must be a mapping"),
        ({"owner": "me", "fruit": {"kind": "os.system"}}, r"basket\.fruit\.kind must be one of apple, pear"),
        ({"owner": "me", "fruit": {"kind": "pear"}}, r"basket\.fruit lacks the field 'length'"),
        ({"owner": "me", "fruit": {"kind": "apple", "wieght": 1}}, r"basket\.fruit\.wieght.*basket\.fruit\.weight\?"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_with_its_full_name(data, message):
    with pytest.raises(ValueError, match=message):
        from_plain(data, (Basket,), "basket")


@dataclass(frozen=True)
class Everything:
    count: int = 1
    share: float = 0.5
    ripe: bool = True
    name: str = "a"
    limit: int | None = None
    rate: float | None = None
    sizes: Sequence[int] = (1,)
    weights: tuple[float, ...] = (0.5,)
    rest: dict[str, int] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("count", "8", "must be an integer; got '8'"),
        ("count", 2.0, r"must be an integer; got 2\.0"),
        ("count", True, "must be an integer; got True"),
        ("count", None, "must be an integer; got None"),
        ("count", 2**53, "must be an integer; got an integer of 54 bits"),
        ("count", -(10**5000), "must be an integer; got an integer of 16610 bits"),
        ("share", "0.5", r"must be a finite number; got '0\.5'"),
        ("share", float("nan"), "must be a finite number; got nan"),
        ("share", 10**400, "must be a finite number; got an integer of 1329 bits"),
        ("ripe", 1, "must be true or false; got 1"),
        ("name", 3, "must be text; got 3"),
        ("limit", "none", "must be an integer or null; got 'none'"),
        ("rate", True, "must be a finite number or null; got True"),
        ("sizes", 3, "must be a list of integers; got 3"),
        ("sizes", "123", "must be a list of integers; got '123'"),
        ("sizes", [1, True], "must hold integers; got True in it"),
        ("sizes", [[1]], "must hold integers; got list in it"),
        ("weights", [float("nan")], "must hold finite numbers; got nan in it"),
        ("rest", [], "must be a mapping; got list"),
        ("name", 10 * ["x" * 100], "got list"),
        ("count", "x" * 1000, r"got '[x]{56}\.\.\.\.$"),
    ],
    ids=range(21),
)
def test_a_value_of_another_type_is_refused_by_name(name, value, message):
    with pytest.raises(ValueError, match=rf"^here\.{name} .*{message}"):
        from_plain({name: value}, (Everything,), "here")


def test_whole_numbers_become_floats_where_those_belong():
    made = from_plain({"share": 1, "rate": 2, "weights": [0, 1], "sizes": [3, 4]}, (Everything,), "here")
    assert (made.share, made.rate, made.weights, made.sizes) == (1.0, 2.0, (0.0, 1.0), [3, 4])
    assert [type(x) for x in (made.share, made.rate, *made.weights)] == 4 * [float]
    assert [type(x) for x in made.sizes] == 2 * [int]
    assert from_plain({"limit": None, "rest": {"a": 1}}, (Everything,), "here").rest == {"a": 1}


def test_an_annotation_that_is_not_known_is_our_own_mistake():
    with pytest.raises(TypeError, match=r"here\.x is annotated with .*complex.*does not know"):
        check_type(1j, complex, "here.x")
