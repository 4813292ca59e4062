"""The texts that an exported ONNX file keeps: read without ONNX's library, which engines do without."""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

PREFIX = "frcnn."
"""Begins the names of texts of ours."""

METADATA_PROPS = 14  # of ONNX's ModelProto: pairs of a key (1) and a value (2)


def graph_texts(content: bytes) -> dict[str, str]:
    """Texts of ours by name, without the prefix: `config`, `spec`, `graph`; none in files of others."""
    try:
        stored = _model().FromString(content).metadata_props
    except DecodeError:
        return {}
    return {item.key.removeprefix(PREFIX): item.value for item in stored if item.key.startswith(PREFIX)}


def _model() -> Any:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="model.proto", package="texts")
    entry, model = file.message_type.add(name="Entry"), file.message_type.add(name="Model")
    for number, name in enumerate(("key", "value"), 1):
        entry.field.add(name=name, number=number, label=field.LABEL_OPTIONAL, type=field.TYPE_STRING)
    model.field.add(
        name="metadata_props",
        number=METADATA_PROPS,
        label=field.LABEL_REPEATED,
        type=field.TYPE_MESSAGE,
        type_name=".texts.Entry",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("texts.Model"))
