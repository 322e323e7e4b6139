# SPDX-License-Identifier: Apache-2.0
"""The layers of known networks as bare shapes, batch one, for benchmarks of the mapper."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from enos_compiler.ir.shape import LayerShape


def conv(m: int, c: int, p: int, r: int, stride: int = 1, g: int = 1) -> LayerShape:
    """A square convolution."""
    return LayerShape(g=g, m=m // g, c=c // g, p=p, q=p, r=r, s=r, stride=(stride, stride))


def resnet(bottleneck: bool) -> Iterator[LayerShape]:
    """Layers of ResNet-50 or ResNet-18 in order."""
    yield conv(64, 3, 112, 7, 2)
    channels, size = 64, 56
    for stage, blocks in enumerate((3, 4, 6, 3) if bottleneck else (2, 2, 2, 2)):
        width = 64 << stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            out = 4 * width if bottleneck else width
            if bottleneck:
                yield conv(width, channels, size, 1)
            size //= stride
            yield conv(width, width if bottleneck else channels, size, 3, stride)
            yield conv(out, width, size, 1 if bottleneck else 3)
            if channels != out:
                yield conv(out, channels, size, 1, stride)
            channels = out
    yield LayerShape(m=1000, c=channels)


def mobilenet_v2() -> Iterator[LayerShape]:
    """Layers of MobileNetV2 in order."""
    yield conv(32, 3, 112, 3, 2)
    channels, size = 32, 112
    blocks = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
    for widen, out, repeat, first in (*blocks, (6, 160, 3, 2), (6, 320, 1, 1)):
        for block in range(repeat):
            stride = first if block == 0 else 1
            inner = channels * widen
            if widen > 1:
                yield conv(inner, channels, size, 1)
            size //= stride
            yield conv(inner, inner, size, 3, stride, g=inner)
            yield conv(out, inner, size, 1)
            channels = out
    yield conv(1280, 320, 7, 1)
    yield LayerShape(m=1000, c=1280)


def attention(tokens: int, known: int, width: int, heads: int) -> Iterator[LayerShape]:
    """Projections of an attention layer, and its two products of activations.

    Args:
        tokens: rows that are worked out.
        known: rows that they attend to.
        width: of the model.
        heads: into which it is split.
    """
    for _ in range(4):
        yield LayerShape(n=tokens, m=width, c=width)
    yield LayerShape(g=heads, n=tokens, m=known, c=width // heads)
    yield LayerShape(g=heads, n=tokens, m=width // heads, c=known)


def vit_b16() -> Iterator[LayerShape]:
    """Layers of ViT-B/16 at 224 x 224: 196 patches and a class token, twelve equal blocks."""
    yield LayerShape(m=768, c=3, p=14, q=14, r=16, s=16, stride=(16, 16))
    for _ in range(12):
        yield from attention(197, 197, 768, 12)
        yield LayerShape(n=197, m=3072, c=768)
        yield LayerShape(n=197, m=768, c=3072)
    yield LayerShape(m=1000, c=768)


def llama_block(tokens: int) -> Iterator[LayerShape]:
    """One decoder block of the size of Llama-7B over a context of 2048; gate, up, down."""
    yield from attention(tokens, 2048, 4096, 32)
    for _ in range(2):
        yield LayerShape(n=tokens, m=11008, c=4096)
    yield LayerShape(n=tokens, m=4096, c=11008)


NETWORKS: dict[str, Callable[[], Iterator[LayerShape]]] = {
    "resnet18": lambda: resnet(bottleneck=False),
    "resnet50": lambda: resnet(bottleneck=True),
    "mobilenetv2": mobilenet_v2,
    "vit_b16": vit_b16,
    "llama_7b_block": lambda: llama_block(2048),
    "llama_7b_token": lambda: llama_block(1),
}
"""Every layer in order; `distinct` leaves each shape once."""


def distinct(network: str) -> list[LayerShape]:
    """Return the shapes of a network, each once."""
    return list(dict.fromkeys(NETWORKS[network]()))
