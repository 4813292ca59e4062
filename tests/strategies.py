"""Hypothesis strategies made from the settings' own type hints."""

from hypothesis import strategies as st

from frcnn.spec.fields import UINT32_MAX, settings_of

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12) | st.sampled_from(
    ["1e-4", "${x}", r"\${x}", r"\\${", "null", "true", "0x10", "~", "a: b", "'", '"', "1_000", ".5", "\n"]
)
SCALARS = {
    bool: st.booleans(),
    int: st.integers(0, UINT32_MAX),
    float: st.floats(allow_nan=False),
    str: TEXT.filter(lambda text: text != "???"),
}


def messages(cls):
    """Specs with any value the schema can hold, required settings sometimes missing."""
    fields = {field.name: _values(field) for field in settings_of(cls)}
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: _one_member_each(cls, cls(**values)))


def _values(field):
    if field.is_message:
        item = messages(field.kind)
    elif field.wire == "float":
        item = st.integers(0, 2**20)
    else:
        item = SCALARS[field.kind] if field.kind in SCALARS else st.sampled_from(field.kind)
    if field.shape == "list":
        return st.lists(item, max_size=3)
    return st.dictionaries(SCALARS[str], item, max_size=3) if field.shape == "map" else item


def _one_member_each(cls, message):
    chosen = set()
    for field in settings_of(cls):
        if field.oneof and getattr(message, field.name) is not None:
            if field.oneof in chosen:
                setattr(message, field.name, None)
            chosen.add(field.oneof)
    return message
