"""Plain dictionaries <-> configs: kinds, nesting, and every refusal with the full name of the place."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from stereo_sashimi.schema import from_plain, to_plain


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
