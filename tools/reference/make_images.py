#!/usr/bin/env python3
"""Makes tests/data/images: small pictures of every kind, and what Pillow, torchvision and Hugging Face make of them.

    python3 -m venv venv && venv/bin/pip install numpy pillow==11.3.0 torch torchvision transformers
    venv/bin/python tools/reference/make_images.py tests/data/images

The Pillow of the reference (2024) always resizes across first. Newer ones go down first for some shapes: 12.3 above
100:1, 13.0 also for 1000x3000 to 560x1680. A sample then differs by a level here and there.

files.txt     one decoding a line: file, flags (e: ignore EXIF), width, height, orientation, format, CRC-32 of the RGB
resize.txt    one resize a line: source width, height, seed, new width, height, how, CRC-32 of the RGB
canvas.txt    one canvas a line: width, height, tile, max tiles, rows, cols, id, resized width, height (HF's functions)
process.txt   HF processors on synthetic pictures: width, height, how, tiles, CRC-32 of the uint8 tiles, of the f32 ones
*.png, *.jpg, ..   the pictures; those of the first line of each kind are compared pixel by pixel through the CRC
"""
import io
import os
import struct
import sys
import zlib

import numpy as np
import PIL
from PIL import Image, ImageOps

assert int(PIL.__version__.split(".")[0]) < 12, "newer Pillow resizes in another order: use 11.3.0"
OUT = sys.argv[1] if len(sys.argv) > 1 else "tests/data/images"
LINES = []


def crc(array):
    return "%08x" % zlib.crc32(np.ascontiguousarray(array).tobytes())


def picture(width, height, channels=3, seed=1):
    """A smooth field with an edge and some noise: small in PNG, sensitive to every filter."""
    rng = np.random.default_rng(seed)
    y, x, c = np.mgrid[0:height, 0:width, 0:channels]
    v = 128 + 90 * np.sin(x / (7 + 3 * c)) + 60 * np.cos(y / (5 + 2 * c) + c) + rng.integers(-6, 7, (height, width, channels))
    v[height // 3: height // 2, width // 4: width // 2] = 255 - 40 * c[height // 3: height // 2, width // 4: width // 2]
    return np.clip(v, 0, 255).astype(np.uint8)


def synthetic(width, height):
    """The picture of the golden img.npz: every value follows from its place."""
    y, x, c = np.mgrid[0:height, 0:width, 0:3]
    return ((7 * x + 13 * y + (x * y) % 31 + 29 * c + 5 * (x // 37) * (y // 23)) % 256).astype(np.uint8)


def hashed(width, height, seed):
    """Noise that C makes as easily: the high byte of a 32-bit hash of the sample's number."""
    n = np.arange(width * height * 3, dtype=np.uint64) + np.uint64(seed) * np.uint64(0x9E3779B9)
    n = (n * np.uint64(2654435761)) & np.uint64(0xFFFFFFFF)
    n = ((n ^ (n >> np.uint64(15))) * np.uint64(2246822519)) & np.uint64(0xFFFFFFFF)
    return (n >> np.uint64(24)).astype(np.uint8).reshape(height, width, 3)


def processor_rgb(image):
    """HF MllamaImageProcessor's convert_to_rgb."""
    if image.mode == "RGB":
        return image
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def expect(name, rgb, orientation, fmt, flags="-"):
    rgb = np.asarray(rgb)
    LINES.append("%s %s %d %d %d %s %s" % (name, flags, rgb.shape[1], rgb.shape[0], orientation, fmt, crc(rgb)))


def keep(name, data, fmt, orientation=1, rgb=None):
    """Writes a file; what it must give is Pillow's answer, unless `rgb` says otherwise (and why, beside the call)."""
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(data)
    if rgb is None:
        image = Image.open(io.BytesIO(data))
        if orientation != 1:
            expect(name, processor_rgb(image), 1, fmt, "e")
        rgb = processor_rgb(ImageOps.exif_transpose(image))
    expect(name, rgb, orientation, fmt)


def saved(image, fmt, **options):
    b = io.BytesIO()
    image.save(b, fmt, **options)
    return b.getvalue()


# ---- PNG ---------------------------------------------------------------------------------

def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, depth, color, rows, before=(), interlace=0, idat=None):
    """rows: packed bytes a row, without filter bytes; filters 0..4 in turn."""
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace))]
    parts += [chunk(n, d) for n, d in before]
    raw = zlib.compress(idat if idat is not None else filtered(rows, depth, color), 9)
    third = len(raw) // 3
    parts += [chunk(b"IDAT", raw[:third]), chunk(b"IDAT", b""), chunk(b"IDAT", raw[third:])]
    return b"".join(parts) + chunk(b"IEND", b"")


def filtered(rows, depth, color):
    step = max(1, {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color] * depth // 8)
    out, above = bytearray(), None
    for y, row in enumerate(rows):
        f, up = y % 5, above if above is not None else bytes(len(row))
        out.append(f)
        for i, v in enumerate(row):
            a, b, c = row[i - step] if i >= step else 0, up[i], up[i - step] if i >= step else 0
            p = a + b - c
            pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
            paeth = a if pa <= pb and pa <= pc else b if pb <= pc else c
            out.append((v - (0, a, b, (a + b) // 2, paeth)[f]) & 255)
        above = row
    return bytes(out)


def packed(samples, depth):
    """[height, width] or [height, width, channels] to rows of bytes."""
    rows = []
    for line in samples:
        line = line.reshape(-1)
        if depth == 16:
            rows.append(line.astype(">u2").tobytes())
        elif depth == 8:
            rows.append(line.astype(np.uint8).tobytes())
        else:
            bits = ((line[:, None] >> np.arange(depth - 1, -1, -1)) & 1).astype(np.uint8).reshape(-1)
            rows.append(np.packbits(bits).tobytes())
    return rows


def adam7(samples, depth, color):
    out = b""
    for x, y, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        part = samples[y::dy, x::dx]
        if part.size:
            out += filtered(packed(part, depth), depth, color)
    return out


def over_white(samples, alpha):
    s, a = samples.astype(np.int64), alpha.astype(np.int64)
    return ((s * a + 255 * (255 - a) + 127) // 255).astype(np.uint8)


def pngs():
    rgb, grey = picture(61, 43), picture(61, 43, 1)[..., 0]
    rgba, la = picture(37, 29, 4), picture(37, 29, 2)
    keep("rgb.png", png(61, 43, 8, 2, packed(rgb, 8)), "png")
    keep("rgb_interlaced.png", png(61, 43, 8, 2, None, interlace=1, idat=adam7(rgb, 8, 2)), "png")
    keep("grey.png", png(61, 43, 8, 0, packed(grey, 8)), "png")
    keep("rgba.png", png(37, 29, 8, 6, packed(rgba, 8)), "png")
    keep("rgba_interlaced.png", png(37, 29, 8, 6, None, interlace=1, idat=adam7(rgba, 8, 6)), "png")
    keep("grey_alpha.png", png(37, 29, 8, 4, packed(la, 8)), "png")
    for depth in (1, 2, 4):
        small = grey >> (8 - depth)
        keep("grey%d.png" % depth, png(61, 43, depth, 0, packed(small, depth)), "png")
        keep("grey%d_interlaced.png" % depth, png(61, 43, depth, 0, None, interlace=1, idat=adam7(small, depth, 0)), "png")
    for depth in (1, 2, 4, 8):
        index = picture(45, 31, 1)[..., 0] >> (8 - depth)
        colours = picture(16, 16)[..., ::-1].reshape(-1, 3)[: 1 << depth].tobytes()
        alpha = bytes((i * 37) & 255 for i in range((1 << depth) - 1))      # shorter than the palette
        keep("palette%d.png" % depth, png(45, 31, depth, 3, packed(index, depth), [(b"PLTE", colours)]), "png")
        keep("palette%d_trns.png" % depth, png(45, 31, depth, 3, packed(index, depth),
                                               [(b"PLTE", colours), (b"tRNS", alpha)]), "png")
    keep("grey_trns.png", png(61, 43, 8, 0, packed(grey, 8), [(b"tRNS", struct.pack(">H", int(grey[5, 5])))]), "png")
    keep("grey1_trns.png", png(61, 43, 1, 0, packed(grey >> 7, 1), [(b"tRNS", b"\0\0")]), "png")
    # Pillow compares a 4-bit key with the scaled value; the PNG standard compares before scaling.
    four = grey >> 4
    shown = np.where(four == four[5, 5], 255, four * 17).astype(np.uint8)
    keep("grey4_trns.png", png(61, 43, 4, 0, packed(four, 4), [(b"tRNS", struct.pack(">H", int(four[5, 5])))]), "png",
         rgb=np.repeat(shown[..., None], 3, 2))
    keep("rgb_trns.png", png(61, 43, 8, 2, packed(rgb, 8), [(b"tRNS", struct.pack(">HHH", *map(int, rgb[5, 5])))]), "png")
    wide = (picture(33, 21, 4).astype(np.uint32) * 257 + picture(33, 21, 4, 2) // 2).clip(0, 65535)
    # Pillow clips 16-bit grey at 255, which turns a scan white; the high byte is what the picture means.
    keep("grey16.png", png(33, 21, 16, 0, packed(wide[..., 0], 16)), "png",
         rgb=np.repeat((wide[..., :1] >> 8).astype(np.uint8), 3, 2))
    keep("rgb16.png", png(33, 21, 16, 2, packed(wide[..., :3], 16)), "png")
    keep("rgba16.png", png(33, 21, 16, 6, packed(wide, 16)), "png")
    keep("grey_alpha16.png", png(33, 21, 16, 4, packed(wide[..., :2], 16)), "png")
    keep("rgb16_interlaced.png", png(33, 21, 16, 2, None, interlace=1, idat=adam7(wide[..., :3], 16, 2)), "png")
    for n in (1, 2, 3, 5):                                    # passes of no pixels
        tiny = picture(n, n)
        keep("interlaced_%dx%d.png" % (n, n), png(n, n, 8, 2, None, interlace=1, idat=adam7(tiny, 8, 2)), "png")
    keep("one_pixel.png", png(1, 1, 8, 2, packed(picture(1, 1), 8)), "png")
    exif = Image.Exif()
    exif[0x0112] = 6
    keep("exif6.png", png(61, 43, 8, 2, packed(rgb, 8), [(b"eXIf", exif.tobytes()[6:])]), "png", 6)
    long = np.zeros((100, 30000, 3), np.uint8)
    long[:, :, 0] = np.arange(30000) // 118
    long[::9, ::7, 1] = 200
    keep("wide_30000x100.png", saved(Image.fromarray(long), "PNG", optimize=True), "png")
    keep("tall_100x30000.png", saved(Image.fromarray(np.ascontiguousarray(long.transpose(1, 0, 2))), "PNG", optimize=True), "png")
    # Bombs: too many pixels, and far more data than the picture has.
    squeeze = zlib.compressobj(9)
    row, dense = bytes(2501), []
    for _ in range(20000):
        dense.append(squeeze.compress(row))
    dense = b"".join(dense) + squeeze.flush()
    head = b"\x89PNG\r\n\x1a\n"
    for name, w, h in (("bomb_20000x20000.png", 20000, 20000), ("bomb_inflates.png", 16, 16)):
        with open(os.path.join(OUT, name), "wb") as f:
            f.write(head + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 1, 0, 0, 0, 0)) + chunk(b"IDAT", dense) + chunk(b"IEND", b""))
    alpha = np.zeros((256, 256, 4), np.uint8)                 # every (value, alpha) pair
    alpha[..., 0] = alpha[..., 1] = alpha[..., 2] = np.arange(256)[None, :]
    alpha[..., 3] = np.arange(256)[:, None]
    keep("every_alpha.png", saved(Image.fromarray(alpha), "PNG", optimize=True), "png")


# ---- JPEG --------------------------------------------------------------------------------

def jpegs():
    image = Image.fromarray(picture(93, 71))
    for name, sub in (("444", 0), ("422", 1), ("420", 2)):
        keep("rgb_%s.jpg" % name, saved(image, "JPEG", quality=85, subsampling=sub), "jpeg")
        keep("progressive_%s.jpg" % name, saved(image, "JPEG", quality=85, subsampling=sub, progressive=True), "jpeg")
    keep("grey.jpg", saved(image.convert("L"), "JPEG", quality=85), "jpeg")
    keep("grey_progressive.jpg", saved(image.convert("L"), "JPEG", quality=85, progressive=True), "jpeg")
    keep("rgb_direct.jpg", saved(image, "JPEG", quality=90, keep_rgb=True), "jpeg")
    keep("restart.jpg", saved(image, "JPEG", quality=80, restart_marker_blocks=3), "jpeg")
    cmyk = Image.fromarray(picture(51, 33, 4), "CMYK")
    keep("cmyk.jpg", saved(cmyk, "JPEG", quality=90), "jpeg")
    ycck = bytearray(saved(cmyk, "JPEG", quality=90))         # the same scan, told to be YCCK
    adobe = ycck.find(b"Adobe")
    ycck[adobe + 11] = 2
    keep("ycck.jpg", bytes(ycck), "jpeg")
    keep("one_pixel.jpg", saved(Image.fromarray(picture(1, 1)), "JPEG"), "jpeg")
    keep("low_quality.jpg", saved(image, "JPEG", quality=5), "jpeg")
    for o in range(1, 9):
        exif = Image.Exif()
        exif[0x010F] = "a maker"
        exif[0x0112] = o
        keep("exif%d.jpg" % o, saved(Image.fromarray(picture(41, 27)), "JPEG", quality=85, exif=exif), "jpeg", o)
    big = bytearray(saved(Image.fromarray(picture(41, 27)), "JPEG", quality=85, exif=exif))
    at = big.find(b"Exif\0\0") + 6                            # a little-endian block, written by hand
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    length = struct.unpack(">H", bytes(big[at - 8:at - 6]))[0]
    big[at - 8:at + length - 8] = struct.pack(">H", 8 + len(tiff)) + b"Exif\0\0" + tiff
    keep("exif6_little.jpg", bytes(big), "jpeg", 6)


# ---- the rest ----------------------------------------------------------------------------

def bmp(width, height, bits, rows, header=40, compression=0, palette=b"", masks=(), top_down=False, data=None):
    stride = (width * bits + 31) // 32 * 4
    body = data if data is not None else b"".join(r.ljust(stride, b"\0") for r in (rows if top_down else rows[::-1]))
    mask = b"".join(struct.pack("<I", m) for m in masks)
    info = struct.pack("<IiiHHIIiiII", header, width, -height if top_down else height, 1, bits, compression, len(body), 2835,
                       2835, len(palette) // 4, 0)
    if header > 40:
        info += mask.ljust(header - 40, b"\0")
        mask = b""
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    at = 14 + len(info) + len(mask) + len(palette)
    return b"BM" + struct.pack("<IHHI", at + len(body), 0, 0, at) + info + mask + palette + body


def bmps():
    rgb = picture(35, 23)
    bgr = [r[:, ::-1].tobytes() for r in rgb]
    keep("rgb24.bmp", bmp(35, 23, 24, bgr), "bmp")
    keep("top_down.bmp", bmp(35, 23, 24, bgr, top_down=True), "bmp")
    keep("core.bmp", bmp(35, 23, 24, bgr, header=12), "bmp")
    four = picture(35, 23, 4)
    keep("rgb32.bmp", bmp(35, 23, 32, [r.tobytes() for r in four]), "bmp")
    keep("rgba32.bmp", bmp(35, 23, 32, [r.tobytes() for r in four], 124, 3, masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000)), "bmp")
    words = (four[..., 0].astype(np.uint16) << 8 | four[..., 1]).astype("<u2")
    keep("rgb555.bmp", bmp(35, 23, 16, [r.tobytes() for r in words]), "bmp")
    keep("rgb565.bmp", bmp(35, 23, 16, [r.tobytes() for r in words], 40, 3, masks=(0xF800, 0x7E0, 0x1F)), "bmp")
    for depth in (1, 4, 8):
        index = four[..., 0] >> (8 - depth)
        colours = picture(16, 16, 4, 3).reshape(-1, 4)[: 1 << depth].tobytes()
        keep("palette%d.bmp" % depth, bmp(35, 23, depth, packed(index, depth), palette=colours), "bmp")
    runs = b""
    colours = picture(16, 16, 4, 3).reshape(-1, 4).tobytes()
    for y in range(9):
        runs += bytes([20, y * 9 % 256, 0, 5, 1, 2, 3, 4, 5, 0, 10, 200]) + b"\0\0"
    keep("rle8.bmp", bmp(35, 9, 8, None, compression=1, palette=colours, data=runs + b"\0\1"), "bmp")
    # Six, not five: Pillow before 13 loses the last of an odd number of pixels.
    runs = b"".join(bytes([20, 0x12 + y, 0, 6, 0x34, 0x56, 0x70, 0, 9, 0xAB]) + b"\0\0" for y in range(9))
    keep("rle4.bmp", bmp(35, 9, 4, None, compression=2, palette=colours[:64], data=runs + b"\0\1"), "bmp")
    keep("pillow.bmp", saved(Image.fromarray(rgb), "BMP"), "bmp")


def gifs():
    image = Image.fromarray(picture(57, 39)).quantize(64, dither=Image.Dither.NONE)
    keep("palette.gif", saved(image, "GIF", interlace=0), "gif")
    keep("interlaced.gif", saved(image, "GIF", interlace=1), "gif")
    keep("transparent.gif", saved(image, "GIF", transparency=int(np.asarray(image)[5, 5])), "gif")
    keep("grey.gif", saved(Image.fromarray(picture(57, 39, 1)[..., 0]), "GIF"), "gif")
    more = [Image.fromarray(picture(57, 39, seed=s)).quantize(16) for s in (5, 6)]
    keep("animated.gif", saved(image, "GIF", save_all=True, append_images=more, duration=50), "gif")
    noise = Image.fromarray(hashed(90, 60, 4)[..., 0], "L")   # fills the code table several times
    keep("noise.gif", saved(noise, "GIF"), "gif")
    part = bytearray(saved(image, "GIF", interlace=0))        # a frame inside a larger screen
    part[6:10] = struct.pack("<HH", 70, 50)
    at = part.index(b",", 13 + 3 * (2 << (part[10] & 7)))
    part[at + 1:at + 5] = struct.pack("<HH", 6, 4)
    keep("part_of_screen.gif", bytes(part), "gif")
    part[at + 1:at + 5] = struct.pack("<HH", 30, 20)          # and one that leaves it
    keep("beyond_screen.gif", bytes(part), "gif")


def pnms():
    rgb = picture(31, 17)
    keep("rgb.ppm", b"P6\n# a comment\n31 17\n255\n" + rgb.tobytes(), "pnm")
    keep("grey.pgm", b"P5 31 17 255\n" + rgb[..., 0].tobytes(), "pnm")
    keep("bits.pbm", b"P4\n31 17\n" + b"".join(packed(rgb[..., 0] >> 7, 1)), "pnm")
    keep("rgb100.ppm", b"P6\n31 17\n100\n" + (rgb % 101).astype(np.uint8).tobytes(), "pnm")
    keep("grey6.pgm", b"P5\n31 17\n6\n" + (rgb[..., 0] % 7).astype(np.uint8).tobytes(), "pnm")
    wide = (rgb.astype(np.uint32) * 257 + 100).clip(0, 65535)
    keep("rgb16.ppm", b"P6\n31 17\n65535\n" + wide.astype(">u2").tobytes(), "pnm")


# ---- resize, canvas, processors --------------------------------------------------------

SIZES = [(700, 500, 1120, 800), (300, 200, 117, 78), (64, 64, 560, 560), (100, 60, 560, 336), (1, 1, 560, 560),
         (3, 1, 560, 187), (1, 90, 1, 560), (1300, 900, 1120, 775), (30000, 7, 2240, 1), (7, 30000, 1, 2240),
         (65500, 1, 2240, 1), (1, 65500, 1, 2240), (333, 222, 334, 221), (333, 222, 333, 100), (333, 222, 100, 222),
         (17, 5, 16, 5), (16, 9, 16, 9), (2480, 300, 791, 96), (500, 700, 499, 701), (40, 3000, 3, 224), (2, 2, 3, 3)]


def resizes():
    import torch
    from torchvision.transforms.v2 import functional as F
    lines = []
    for i, (w, h, nw, nh) in enumerate(SIZES):
        for seed in (2 * i + 1, 0):                           # 0: black and white columns and rows, the extremes
            source = hashed(w, h, seed) if seed else np.broadcast_to(
                (((np.arange(w)[None, :, None] // 3 + np.arange(h)[:, None, None] // 2) % 2) * 255).astype(np.uint8), (h, w, 3)).copy()
            pil = np.asarray(Image.fromarray(source).resize((nw, nh), Image.Resampling.BILINEAR))
            tensor = torch.from_numpy(source).permute(2, 0, 1).contiguous()
            tv = F.resize(tensor, [nh, nw], interpolation=F.InterpolationMode.BILINEAR, antialias=True)
            lines.append("%d %d %d %d %d pil %s" % (w, h, seed, nw, nh, crc(pil)))
            lines.append("%d %d %d %d %d tv %s" % (w, h, seed, nw, nh, crc(tv.permute(1, 2, 0).numpy())))
    return lines


def canvases():
    from transformers.models.mllama.image_processing_mllama import (get_all_supported_aspect_ratios,
                                                                   get_image_size_fit_to_canvas, get_optimal_tiled_canvas)
    rng = np.random.default_rng(7)
    sizes = [(1, 1), (100, 60), (560, 560), (561, 560), (561, 561), (700, 500), (640, 480), (800, 600), (1920, 1080),
             (2480, 3508), (2000, 300), (300, 2000), (1121, 1120), (4000, 1000), (1000, 3000), (9999, 1), (30000, 100),
             (100, 30000), (65500, 1), (1, 65500), (1120, 560), (560, 1120), (1680, 560), (2240, 560), (448, 448)]
    sizes += [tuple(int(v) for v in np.exp(rng.uniform(0, np.log(9000), 2))) for _ in range(300)]
    lines = []
    for w, h in sizes:
        for tile, tiles in ((560, 4), (560, 2), (560, 1), (448, 4), (28, 4)):
            ch, cw = get_optimal_tiled_canvas(image_height=h, image_width=w, max_image_tiles=tiles, tile_size=tile)
            nh, nw = get_image_size_fit_to_canvas(image_height=h, image_width=w, canvas_height=ch, canvas_width=cw, tile_size=tile)
            rows, cols = int(ch) // tile, int(cw) // tile
            ident = get_all_supported_aspect_ratios(4).index((rows, cols)) + 1
            lines.append("%d %d %d %d %d %d %d %d %d" % (w, h, tile, tiles, rows, cols, ident, nw, nh))
    return lines


def processed():
    import transformers
    names = [n for n in ("MllamaImageProcessorPil", "MllamaImageProcessor", "MllamaImageProcessorFast") if hasattr(transformers, n)]
    pil = getattr(transformers, "MllamaImageProcessorPil", None) or transformers.MllamaImageProcessor
    fast = transformers.MllamaImageProcessor if hasattr(transformers, "MllamaImageProcessorPil") else transformers.MllamaImageProcessorFast
    options = dict(do_convert_rgb=True, do_resize=True, resample=2, do_rescale=True, rescale_factor=0.00392156862745098, do_pad=True,
                   image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711],
                   max_image_tiles=4, size={"height": 560, "width": 560})
    lines = ["# " + " ".join(names)]
    for w, h in ((700, 500), (1300, 900), (100, 60), (1, 1), (561, 561), (3000, 70), (70, 3000), (2480, 3508)):
        image = Image.fromarray(synthetic(w, h))
        for how, cls in (("pil", pil), ("tv", fast)):
            raw = cls(**{**options, "do_rescale": False, "do_normalize": False})(image, return_tensors="np")
            n = int(raw["num_tiles"][0][0])
            tiles = np.asarray(raw["pixel_values"])[0, 0, :n]
            assert (tiles == np.rint(tiles)).all()
            values = np.asarray(cls(**{**options, "do_normalize": True})(image, return_tensors="np")["pixel_values"])[0, 0, :n]
            lines.append("%d %d %s %d %d %s %s" % (w, h, how, n, int(raw["aspect_ratio_ids"][0][0]), crc(tiles.astype(np.uint8)),
                                                   crc(values.astype(np.float32))))
    return lines


def write(name, lines):
    with open(os.path.join(OUT, name), "w") as f:
        f.write("# made by tools/reference/make_images.py: Pillow %s\n" % PIL.__version__)
        f.write("\n".join(lines) + "\n")


os.makedirs(OUT, exist_ok=True)
pngs()
jpegs()
bmps()
gifs()
pnms()
write("files.txt", LINES)
if "--files" not in sys.argv:
    write("resize.txt", resizes())
    write("canvas.txt", canvases())
    write("process.txt", processed())
