"""Protobuf messages made from the dataclasses of `frcnn.spec`, so that there is no second schema."""

import functools
from enum import IntEnum

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from frcnn.spec.fields import Message, Setting, messages_below, settings_of

PACKAGE = "frcnn"
F = descriptor_pb2.FieldDescriptorProto

# TAO declares float where this says double. Text format does not care, and 1e-4 stays 1e-4.
SCALARS = {bool: F.TYPE_BOOL, int: F.TYPE_UINT32, float: F.TYPE_DOUBLE, str: F.TYPE_STRING}
WIRES = {"float": F.TYPE_DOUBLE}


@functools.cache
def message_class(root: type[Message]) -> type[message.Message]:
    """The protobuf class of a message and of all messages in it, in a pool of its own."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{PACKAGE}/{root.__name__}.proto", package=PACKAGE, syntax="proto3"
    )
    enums: dict[type[IntEnum], None] = {}
    for cls in messages_below(root):
        _add_message(file.message_type.add(name=cls.__name__), cls)
        enums |= {field.kind: None for field in settings_of(cls) if field.is_enum}
    for enum in enums:
        proto = file.enum_type.add(name=enum.__name__)
        for value in enum:
            proto.value.add(name=value.name, number=value.value)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{root.__name__}"))


def _add_message(proto: descriptor_pb2.DescriptorProto, cls: type[Message]) -> None:
    fields = settings_of(cls)
    oneofs = list(dict.fromkeys(field.oneof for field in fields if field.oneof))
    for name in oneofs:
        proto.oneof_decl.add(name=name)
    for field in fields:
        entry = proto.field.add(name=field.name, number=field.number, label=F.LABEL_OPTIONAL)
        if field.shape == "map":
            entry.label, entry.type = F.LABEL_REPEATED, F.TYPE_MESSAGE
            entry.type_name = f".{PACKAGE}.{cls.__name__}.{_add_map_entry(proto, field)}"
            continue
        if field.is_message or field.is_enum:
            entry.type = F.TYPE_MESSAGE if field.is_message else F.TYPE_ENUM
            entry.type_name = f".{PACKAGE}.{field.kind.__name__}"
        else:
            entry.type = WIRES[field.wire] if field.wire else SCALARS[field.kind]
        if field.shape == "list":
            entry.label = F.LABEL_REPEATED
        elif field.oneof:
            entry.oneof_index = oneofs.index(field.oneof)
        elif not field.is_message:
            # proto3 tells an unset scalar from a zero through a oneof of one member.
            entry.proto3_optional = True
            entry.oneof_index = len(proto.oneof_decl)
            proto.oneof_decl.add(name=f"_{field.name}")


def _add_map_entry(proto: descriptor_pb2.DescriptorProto, field: Setting) -> str:
    nested = proto.nested_type.add(name="".join(map(str.capitalize, field.name.split("_"))) + "Entry")
    nested.options.map_entry = True
    nested.field.add(name="key", number=1, label=F.LABEL_OPTIONAL, type=F.TYPE_STRING)
    nested.field.add(name="value", number=2, label=F.LABEL_OPTIONAL, type=SCALARS[field.kind])
    return nested.name
