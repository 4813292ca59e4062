"""Model files at rest: sealed with a key, and opened with it without a decrypted copy on the disk.

A sealed file is a header, then the content under AES-256-GCM with its tag of 16 bytes. The header is
`FRCNNENC`, the version in a byte, 16 bytes of salt and 12 of nonce, both random; it is authenticated as well.
The cipher's key is scrypt (RFC 7914) of the user's key, at costs that belong to the version: a file cannot
ask for more.
"""

import os
import struct
from pathlib import Path

from frcnn.bridge.files import write_bytes
from frcnn.errors import RunError, SpecError, WeightsError
from frcnn.paths import refuse_missing

SUFFIX = ".enc"
"""What a sealed file's name has behind that of its content."""

VARIABLE = "FRCNN_ENC_KEY"
"""Environment variable that carries the key to whatever opens a file, in further processes too."""

MAGIC, VERSION = b"FRCNNENC", 1
MAX_BYTES = 2**31 - 1  # what the cipher takes at once
_HEADER, _TAG = struct.Struct("8sB16s12s"), 16


def model_suffix(path: str | Path) -> str:
    """The suffix that says what is in a file, lower case: .ckpt of both `a.ckpt` and `a.ckpt.enc`."""
    path = Path(path)
    return Path(path.stem if path.suffix == SUFFIX else path.name).suffix.lower()


def is_sealed(path: str | Path) -> bool:
    """Whether a file begins as a sealed one."""
    with Path(path).open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def seal(path: str | Path, key: str = "") -> Path:
    """Replace a file by a sealed one, whose name is its own and .enc; returns that name.

    Args:
        path: the file, which is deleted.
        key: the user's; that of the environment if empty.

    Raises:
        SpecError: there is no key.
        RunError: it cannot be written, or is too large.
    """
    path = Path(path)
    target = path.with_name(path.name + SUFFIX)
    write_bytes(target, sealed(path.read_bytes(), key, where=path))
    path.unlink()
    return target


def unsealed(path: str | Path, key: str = "") -> bytes:
    """The content of a file, sealed or not.

    Args:
        path: a file.
        key: the user's; that of the environment if empty. Not looked at where nothing is sealed.

    Raises:
        WeightsError: no such file, an empty one, or one that is called .enc and is not sealed by us.
        SpecError: there is no key, or it is not the one that the file was sealed with.
    """
    path = Path(path)
    refuse_missing(path, what="model file")
    content = path.read_bytes()
    if content.startswith(MAGIC):
        return opened(content, key, where=path)
    if path.suffix == SUFFIX:
        hint = "NVIDIA's .tlt and .etlt are encrypted in a way of their own, which only its toolkit decodes"
        found = f"{len(content)} bytes that begin with {content[:8]!r}" if content else "an empty file"
        raise WeightsError("is no sealed file of frcnn", where=path, found=found, hint=hint)
    return content


def sealed(content: bytes, key: str = "", *, where: object) -> bytes:
    """A file's content as `seal` writes it; `where` names the file in errors."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    key = needed_key(key, where=where)
    if len(content) > MAX_BYTES - _TAG:
        found, allowed = f"{len(content):,} bytes", f"{MAX_BYTES - _TAG:,}"
        raise RunError("is too large to be encrypted", where=where, found=found, allowed=allowed)
    salt, nonce = os.urandom(16), os.urandom(12)
    header = _HEADER.pack(MAGIC, VERSION, salt, nonce)
    return header + AESGCM(derive(key, salt)).encrypt(nonce, content, header)


def opened(content: bytes, key: str = "", *, where: object) -> bytes:
    """What `sealed` made a file of; errors as in `unsealed`."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(content) < _HEADER.size + _TAG:
        raise WeightsError("is cut off", where=where, found=f"{len(content)} bytes")
    header = content[: _HEADER.size]
    _, version, salt, nonce = _HEADER.unpack(header)
    if version != VERSION:
        hint = "a newer frcnn wrote it" if version > VERSION else None
        message = "is sealed in a way that this version does not know"
        raise WeightsError(message, where=where, found=version, allowed=VERSION, hint=hint)
    try:
        cipher = AESGCM(derive(needed_key(key, where=where), salt))
        return cipher.decrypt(nonce, memoryview(content)[_HEADER.size :], header)
    except InvalidTag:
        # The cipher cannot tell one from the other.
        message = "cannot be opened: the key is not the file's, or the file was changed or cut off"
        raise SpecError(message, where=where, hint="the key of the run that wrote it") from None


def needed_key(key: str = "", *, where: object) -> str:
    """The key that is given, or that of the environment.

    Raises:
        SpecError: there is none.
    """
    key = key or os.environ.get(VARIABLE, "")
    if not key:
        raise SpecError(
            "needs the key",
            where=where,
            hint="enc_key=KEY on the command line (-k KEY of build_engine and import_weights), enc_key in "
            f"the spec, or the environment variable {VARIABLE}; in Python frcnn.load(PATH, key=KEY)",
        )
    return key


def derive(key: str, salt: bytes, *, cost: int = 2**15, parallel: int = 3, size: int = 32) -> bytes:
    """`size` bytes of scrypt with blocks of 8: a third of a second and 32 MB as files are sealed."""
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return Scrypt(salt=salt, length=size, n=cost, r=8, p=parallel).derive(key.encode())
