"""A video codec: the codes of a tokenizer, entropy-coded with what a prior expects, in a small file.

    codec = Codec(world)
    with open("film.vqv", "wb") as file:
        codec.encode(frames, 25.0, file)           # (h, w, 3) uint8 frames, as they come
    with open("film.vqv", "rb") as file:
        for frames in codec.decode(file): ...      # (n, h, w, 3) uint8

The file restores exactly the codes that were encoded, on any machine, or says where it cannot.
"""

from vqvideo.codec.codec import Codec, Summary
from vqvideo.codec.container import Header, read_header

__all__ = ["Codec", "Header", "Summary", "read_header"]
