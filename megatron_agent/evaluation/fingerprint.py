"""Which model was it? A hash of a model folder that changes with its weights and takes a moment, not minutes."""

import hashlib
from pathlib import Path

MODEL_FILES = (".json", ".jinja", ".model", ".txt", ".safetensors", ".bin", ".gguf")
BLOCK_BYTES = 1 << 16
BLOCKS = 256


def model_fingerprint(folder: str | Path) -> str:
    """Return a SHA-256 over the configuration, tokenizer and weight files of a Hugging Face folder.

    Files of up to 16 MiB count whole; of larger ones the name, the size and 256 evenly spaced blocks of 64 KiB:
    training changes every tensor, and 140 GB of weights would take minutes to hash. Times do not count, so a copied
    model stays the same model. Raises OSError when a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(folder).iterdir()):
        if path.suffix not in MODEL_FILES or path.name.startswith(".") or not path.is_file():
            continue
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode("utf-8", "surrogateescape"))
        blocks = min(BLOCKS, -(-size // BLOCK_BYTES))
        with path.open("rb") as handle:
            for number in range(blocks):
                start = number * (size - BLOCK_BYTES) // max(blocks - 1, 1)
                handle.seek(max(start, 0))
                digest.update(handle.read(BLOCK_BYTES))
    return digest.hexdigest()
