import functools

import pytest

from deeprank_jax.errors import ConfigError
from deeprank_jax.registry import Registry, argument_doc, config_keys


class Hinge:
    def __init__(self, *, margin: float = 0.2, scale: float, relevance_fn):
        """Creates the loss.

        Args:
          margin: Gap between the distances.
          scale: Factor of each distance, above 0, by which the
            loss grows; 1 is usual.
          relevance_fn: Relevance of pairs.
        """
        if relevance_fn is None:
            raise ValueError("relevance_fn must be a function, got None.")
        if margin <= 0:
            raise ValueError(f"margin must be above 0, got {margin}.")
        self.values = margin, scale, relevance_fn

    def losses(self):
        return self.values


class AnyArgument(type):
    def __call__(cls, *args, **kwargs):
        return super().__call__(*args, **kwargs)


class SoftHinge(Hinge, metaclass=AnyArgument):
    pass


class Broken:
    def __init__(self):
        raise ValueError("operands could not be broadcast together.")


def create_registry():
    kinds = {"hinge": Hinge, "wide_hinge": functools.partial(SoftHinge, margin=2.0)}
    return Registry("config.loss", {**kinds, "broken": Broken}, methods=("losses",))


def test_a_kind_is_created_with_its_options_and_the_context_it_takes():
    kinds = create_registry()
    section = {"name": "hinge", "scale": 3.0}
    made = kinds.create(section, relevance_fn=len, axis_name="data")
    assert made.values == (0.2, 3.0, len)
    made = kinds.create({**section, "name": "wide_hinge"}, relevance_fn=len)
    assert made.values == (2.0, 3.0, len)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({}, "config.loss has no name; choose one of broken, hinge, wide_hinge."),
        (
            {"name": "hnige"},
            r"config.loss.name='hnige' is not known \(did you mean 'hinge'\?\); choose",
        ),
        (
            {"name": "hinge", "scale": 1.0, "margn": 0.1},
            r"config.loss.margn is not an option of 'hinge' \(did you mean 'margin'\?\)"
            "; its options are: margin, scale.",
        ),
        (
            {"name": "hinge"},
            "config.loss.name='hinge' needs config.loss.scale: factor of "
            "each distance, above 0, by which the loss grows.",
        ),
        (
            {"name": "hinge", "scale": 1.0, "margin": 0.0},
            "config.loss.margin must be above 0, got 0.0.",
        ),
    ],
)
def test_what_cannot_be_created_is_named(section, message):
    with pytest.raises(ConfigError, match=message):
        create_registry().create(section, relevance_fn=len)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "hnige"}, r"config.losses.hnige is not known \(did you mean 'hinge'"),
        ({"name": "hinge", "margn": 0.1}, "config.losses.hinge.margn is not an option"),
        ({"name": "hinge"}, "config.losses.hinge needs config.losses.hinge.scale: "),
        (
            {"name": "hinge", "scale": 1.0, "margin": 0.0},
            "config.losses.hinge.margin must be above 0, got 0.0.",
        ),
    ],
)
def test_options_of_a_section_of_several_kinds_are_named_in_full(section, message):
    kinds = Registry("config.losses", {"hinge": Hinge}, by_key=True)
    with pytest.raises(ConfigError, match=f"^{message}"):
        kinds.create(section, relevance_fn=len)


def test_a_bug_in_a_kind_keeps_its_own_error():
    with pytest.raises(ValueError, match="broadcast") as error:
        create_registry().create({"name": "broken"})
    assert not isinstance(error.value, ConfigError)
    # The caller's argument is no option of the section.
    with pytest.raises(ValueError, match=r"^relevance_fn must") as error:
        create_registry().create({"name": "hinge", "scale": 1.0}, relevance_fn=None)
    assert not isinstance(error.value, ConfigError)


def test_an_argument_is_named_as_in_the_config():
    for message, expected in (
        ("size must be above 0.", "config.data.image_size must be above 0."),
        ("size[0].width=0 is small", r"config.data.image_size\[0\].width=0 is small"),
        ("sizes must be", "^sizes must be"),
        ("", "^$"),
    ):
        with (
            pytest.raises(ValueError, match=expected),
            config_keys({"size": "config.data.image_size"}),
        ):
            raise ValueError(message)
    with (
        pytest.raises(ConfigError, match=r"^size is this"),
        config_keys({"size": "config.data.image_size"}),
    ):
        raise ConfigError("size is this already.")


def test_the_doc_of_an_argument():
    def fn(file, other):
        """Reads.

        Args:
          file: CSV file
            of pairs; more.
        """

    assert argument_doc(fn, "file") == "CSV file of pairs"
    assert argument_doc(fn, "other") == ""
    assert argument_doc(functools.partial(Hinge), "margin") == (
        "gap between the distances"
    )


def test_a_kind_of_ones_own_is_registered_twice_but_not_over_a_built_in_one():
    kinds = create_registry()
    for _ in range(2):
        assert kinds.register("mine")(Hinge) is Hinge
    assert "mine" in kinds
    assert len(kinds) == 4
    with pytest.raises(
        ConfigError, match=r"'hinge' is a built-in name of config\.loss"
    ):
        kinds.register("hinge")


def test_a_class_that_lacks_a_method_is_refused():
    with pytest.raises(ConfigError, match=r"Broken, .* has no method losses\(\)"):
        create_registry().register("mine")(Broken)


def test_a_function_becomes_a_kind():
    kinds = Registry("config.loss", {}, from_function=lambda fn: lambda: fn)
    kinds.register("mine")(len)
    assert kinds.create({"name": "mine"}) is len


def test_a_kind_that_takes_any_context_gets_all_of_it():
    kinds = create_registry()
    kinds.register("wrapped")(lambda *, scale=1.0, **context: (scale, context))
    made = kinds.create({"name": "wrapped", "scale": 2.0}, relevance_fn=len, seed=3)
    assert made == (2.0, {"relevance_fn": len, "seed": 3})


class Plain:
    def losses(self):
        return 1.0


def test_a_class_without_a_constructor_takes_no_context():
    kinds = create_registry()
    kinds.register("plain")(Plain)
    assert kinds.create({"name": "plain"}, relevance_fn=len).losses() == 1.0
    with pytest.raises(ConfigError, match="its options are: none"):
        kinds.create({"name": "plain", "scale": 1.0}, relevance_fn=len)


def test_a_kind_that_lacks_an_attribute_is_named():
    kinds = Registry("config.loss", {"plain": Plain}, attributes=("outputs",))
    with pytest.raises(
        ConfigError, match=r"Plain, the .*'plain', has no attribute 'out"
    ):
        kinds.create({"name": "plain"})


class Typed:
    def __init__(
        self,
        *,
        level: int = 1,
        share=0.5,
        name: str | None = None,
        ks: tuple[int, ...] = (1,),
    ):
        self.values = level, share, name, ks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "abc"}, r"config\.loss\.level='abc' is not of the type int"),
        ({"level": True}, r"config\.loss\.level=True is not of the type int"),
        ({"share": "x"}, r"config\.loss\.share='x' is not of the type float"),
        ({"name_": 3}, r"config\.loss\.name_ is not an option"),
    ],
)
def test_a_value_of_another_type_is_refused(options, message):
    kinds = Registry("config.loss", {"typed": Typed})
    with pytest.raises(ConfigError, match=message):
        kinds.create({"name": "typed", **options})


def test_values_of_near_types_are_taken():
    kinds = Registry("config.loss", {"typed": Typed})
    made = kinds.create({"name": "typed", "level": 2, "share": 1, "ks": [1, 2]})
    assert made.values == (2, 1, None, [1, 2])
