"""CUDA C++ as TVM writes it, and what it leaves out."""

from __future__ import annotations

import re

# TVM fills a vector of bytes with one value by naming it for each byte, where CUDA's functions take words.
PRELUDE = """\
#ifndef DEBURR_PRELUDE
#define DEBURR_PRELUDE
static __device__ __forceinline__ unsigned deburr_word(unsigned char a, unsigned char b, unsigned char c, unsigned char d) {
  return a | b << 8 | c << 16 | static_cast<unsigned>(d) << 24;
}
static __device__ __forceinline__ uint2 make_uint2(
    unsigned char a, unsigned char b, unsigned char c, unsigned char d,
    unsigned char e, unsigned char f, unsigned char g, unsigned char h) {
  return make_uint2(deburr_word(a, b, c, d), deburr_word(e, f, g, h));
}
static __device__ __forceinline__ uint4 make_uint4(
    unsigned char a, unsigned char b, unsigned char c, unsigned char d,
    unsigned char e, unsigned char f, unsigned char g, unsigned char h,
    unsigned char i, unsigned char j, unsigned char k, unsigned char l,
    unsigned char m, unsigned char n, unsigned char o, unsigned char p) {
  return make_uint4(deburr_word(a, b, c, d), deburr_word(e, f, g, h), deburr_word(i, j, k, l), deburr_word(m, n, o, p));
}
#endif
"""

# Else TVM puts buffers whose lives do not meet into one, and then finds the types of addresses in it wrong.
CONFIG = {"tirx.disable_storage_rewrite": True}


THREADS = 512  # of a multiprocessor, which then has 128 registers for each
_BOUNDS = re.compile(r"__launch_bounds__\((\d+)\)")
_UNROLLED_BARRIER = re.compile(r"^( *#pragma unroll[^\n]*\n)((?: *__syncthreads\(\);\n)+)", re.MULTILINE)


def complete(source: str) -> str:
    """What a compiler for CUDA takes.

    It hears how many blocks are to share a multiprocessor: else ptxas aims at more of them, and spills registers for that. TVM
    puts barriers between a loop and how far it is to be unrolled, which then holds for nothing: the loop is unrolled whole, and
    all that it loads waits in registers at a time.
    """
    bounded = _BOUNDS.sub(lambda found: f"__launch_bounds__({found[1]}, {max(1, THREADS // int(found[1]))})", source)
    return PRELUDE + _UNROLLED_BARRIER.sub(r"\2\1", bounded)
