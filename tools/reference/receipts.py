#!/usr/bin/env python3
"""receipts.py - draws synthetic Australian receipts and the truth about them: what the demo model was trained on.

The one idea: a receipt is a function of its seed alone.  All choices come from one random.Random(seed), in an order that is
part of the format: seeds 7000 to 7007 give tools/demo/receipts again, to the pixel, with Debian 12's python3-pil (Pillow 9.4,
FreeType 2.12.1, raqm) and the fonts below; tests/reference holds this.  Training drew from the streams of seeds 1000 to 1014 (and
7, 99, 0 to 11 around it), so that a receipt of another seed is unseen.

    python3 tools/reference/receipts.py OUT_DIR --count 300 --first-seed 100000

writes r100000.png .. (8-bit grey; the model sees grey as RGB) and truth.jsonl: id, file, prompt, grid, font, fields.
"""
import argparse
import glob
import hashlib
import json
import os
import random
import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

TILE = 224
PROMPT = "Extract the receipt as KEY: VALUE lines."
FIELDS = ("DOCUMENT_TYPE", "SUPPLIER", "ABN", "DATE", "NUMBER", "ITEMS", "PRICES", "GST", "TOTAL", "PAYMENT")
FONT_FOLDER = "/usr/share/fonts/truetype"
# Debian package: its fonts. Which 28 the training had was not written down. The demo receipts fix eight of them and their places in the
# sorted list (DejaVuSans 1, DejaVuSansMono-Bold 2, FreeSans 7, LiberationMono-Bold 12, NotoMono 17, NotoSansMono 19, OpenSans 20,
# Roboto-Bold 22); the others are these packages' upright text fonts, as many as fit between, less those that the model reads
# clearly worse than the rest (FreeSerif, DejaVuSerif-Bold, light and narrow ones).
FONTS = {
    "fonts-dejavu-core": "DejaVuSans-Bold DejaVuSans DejaVuSansMono-Bold DejaVuSansMono DejaVuSerif",
    "fonts-freefont-ttf": "FreeMono FreeMonoBold FreeSans FreeSansBold",
    "fonts-hack": "Hack-Bold Hack-Regular",
    "fonts-lato": "Lato-Regular",
    "fonts-liberation2": "LiberationMono-Bold LiberationMono-Regular LiberationSans-Bold LiberationSans-Regular LiberationSerif-Regular",
    "fonts-noto-mono": "NotoMono-Regular NotoSansMono-Bold NotoSansMono-Regular",
    "fonts-open-sans": "OpenSans-Regular OpenSans-Semibold",
    "fonts-roboto-unhinted": "Roboto-Bold Roboto-Medium Roboto-Regular RobotoCondensed-Regular",
    "fonts-ubuntu": "Ubuntu-R UbuntuMono-R",                    # of Debian's section non-free
}

# ---- words ---------------------------------------------------------------------------------------

SYLLABLES = ("ba be bi bo bu ca co cu da de di do du fa fe fi fo ga ge go ha he hi ho ja jo ka ke ki ko la le li lo lu ma me mi mo mu na ne "
             "ni no nu pa pe pi po ra re ri ro ru sa se si so su ta te ti to tu va ve vi wa we wi wo ya yo za zo an ar en er in or on ur al "
             "el st tr br cr gr pl sh ch th").split()
FIRST = ("Golden Blue Red Green Silver Sunny Royal Urban Coastal Outback Southern Northern Eastern Western Harbour River Mountain Ocean City "
         "Corner Fresh Happy Lucky Prime Quick Smart Super Metro Global National Aussie Bush Coral Crystal Diamond Emerald Family Garden "
         "Heritage Iron Jade Koala Little Magpie Noble Old Pacific Queens Rainbow Star Twin Union Valley Wattle Young Zen").split()
TRADE = ("Cafe Bakery Butchery Pharmacy Hardware Grocers Market Motors Electrical Books Sports Fuel Kitchen Deli Pizza Sushi Noodle Burger "
         "Grill Bar Bistro Hotel Motel Florist Nursery Pets Toys Shoes Fashion Jewellers Optical Dental Medical Office Supplies Tools Paints "
         "Tyres Auto Cycles Music Games Phones Computers Furniture Bedding Homewares Liquor Cellars Seafood Organics Trading").split()
COMPANY = ("", "", "", " Pty Ltd", " Co", " Group", " & Sons", " Store")
GOODS = ("Flat White|Cappuccino|Long Black|Meat Pie|Sausage Roll|Milk 2L|Bread White|Eggs Dozen|Butter 500g|Cheese Slices|Bananas|Apples Pink|"
         "Carrots 1kg|Potatoes|Chicken Breast|Beef Mince|Lamb Chops|Tim Tams|Vegemite|Orange Juice|Mineral Water|Paper Towel|Dish Soap|"
         "AA Batteries|Light Globe|Paint Brush|Hex Bolts|Screws 50pk|Garden Hose|Potting Mix|USB Cable|Phone Case|Notebook A4|Blue Pens|"
         "Printer Ink|T Shirt|Socks 3pk|Running Shoes|Unleaded 91|Diesel|Car Wash|Engine Oil|Panadol|Sunscreen|Vitamins|Band Aids|Dog Food|"
         "Cat Litter|Rose Bunch|Birthday Card|Rice 5kg|Pasta|Olive Oil|Tomatoes|Onions|Yoghurt|Ice Cream|Salmon Fillet|Prawns 1kg|"
         "Red Wine").split("|")
STREETS = ("High Main Church George King Queen Victoria Albert Park Station Railway Beach Ocean River Hill Smith Jones Collins Bourke "
           "Elizabeth").split()
SUBURBS = ("Sydney NSW 2000|Melbourne VIC 3000|Brisbane QLD 4000|Perth WA 6000|Adelaide SA 5000|Hobart TAS 7000|Darwin NT 0800|"
           "Canberra ACT 2600|Geelong VIC 3220|Newcastle NSW 2300|Cairns QLD 4870|Parramatta NSW 2150").split("|")
PAYMENTS = ("VISA", "MASTERCARD", "EFTPOS", "CASH", "AMEX")
GRIDS, GRID_WEIGHTS = ((4, 1), (3, 1), (2, 1), (2, 2), (1, 1)), (.35, .25, .15, .15, .1)      # rows, columns of tiles

# ---- what is on a receipt ------------------------------------------------------------------------


def draw_abn(r):
    """Eleven digits that satisfy the ABN's checksum, in its usual groups."""
    weights = (10, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19)
    while True:
        d = [r.randint(0, 9) for _ in weights]
        if d[0] and sum(w * x for w, x in zip(weights, d)) % 89 == weights[0] % 89:       # the first digit counts one less
            s = "".join(map(str, d))
            return f"{s[:2]} {s[2:5]} {s[5:8]} {s[8:]}"


def draw_word(r):
    return "".join(r.choice(SYLLABLES) for _ in range(r.randint(2, 4))).capitalize()[:10]


def draw_supplier(r):
    kind = r.random()
    if kind < .45:
        name = f"{r.choice(FIRST)} {r.choice(TRADE)}"
    elif kind < .8:
        name = f"{draw_word(r)} {r.choice(TRADE)}"
    else:
        name = f"{draw_word(r)} {draw_word(r)}"
    return name + r.choice(COMPANY) if len(name) < 17 else name


def draw_item(r):
    """(name, quantity, cents for one)"""
    quantity = 1 if r.random() < .7 else r.randint(2, 9)
    name = r.choice(GOODS) if r.random() < .8 else draw_word(r)
    return name, quantity, r.choice([r.randint(95, 2000), r.randint(100, 15000)])


def draw_record(r):
    items = [draw_item(r) for _ in range(r.randint(1, 5))]
    total = sum(quantity * cents for _, quantity, cents in items)
    day, month, year = r.randint(1, 28), r.randint(1, 12), r.randint(2018, 2027)
    return dict(items=items, total=total, gst=round(total / 11), supplier=draw_supplier(r), abn=draw_abn(r) if r.random() < .85 else None,
                date=f"{day:02d}/{month:02d}/{year}", number=str(r.randint(1000, 999999)), payment=r.choice(PAYMENTS),
                kind="INVOICE" if r.random() < .3 else "RECEIPT")


def money(cents):
    return f"${cents // 100}.{cents % 100:02d}"


def true_fields(d):
    values = (d["kind"], d["supplier"], d["abn"] or "NOT_FOUND", d["date"], d["number"], " | ".join(name for name, _, _ in d["items"]),
              " | ".join(money(quantity * cents) for _, quantity, cents in d["items"]), money(d["gst"]), money(d["total"]), d["payment"])
    return dict(zip(FIELDS, values))


# ---- how it is laid out --------------------------------------------------------------------------

CENTRED, NAME, LEFT, RULE = "centred", "name", "left", "rule"


def head_lines(r, d, grid):
    tall = grid[0] > 1
    lines = [(d["supplier"] if r.random() < .6 else d["supplier"].upper(), None, NAME)]
    if tall and r.random() < .7:
        lines.append((f"{r.randint(1, 399)} {r.choice(STREETS)} St", None, CENTRED))
    if tall and r.random() < .5:
        lines.append((r.choice(SUBURBS), None, CENTRED))
    if tall and r.random() < .4:
        lines.append((f"Ph 0{r.randint(2, 8)} {r.randint(1000, 9999)} {r.randint(1000, 9999)}", None, CENTRED))
    if d["abn"]:
        lines.append((r.choice(["ABN ", "ABN: ", "A.B.N. "]) + d["abn"], None, CENTRED))
    lines.append(("TAX INVOICE" if d["kind"] == "INVOICE" else r.choice(["RECEIPT", "TAX RECEIPT", "SALE"]), None, CENTRED))
    time = f"{r.randint(0, 23):02d}:{r.randint(0, 59):02d}"
    if r.random() < .5:
        label = r.choice(["Date: ", "DATE ", "Date "])
        room = grid[0] * grid[1] > 1
        lines.append((label + d["date"], time if room and r.random() < .4 and grid[1] > 1 else None, LEFT))
    else:
        lines.append((r.choice(["Date", "DATE", "Issued"]), d["date"], LEFT))
    lines.append((r.choice(["No", "Receipt #", "Inv No", "Ref"]), d["number"], LEFT))
    return lines


def layout_lines(r, d, grid):
    """All lines from top to bottom: (text, text at the right or None, style)."""
    lines = head_lines(r, d, grid) + [("", None, RULE)]
    for name, quantity, cents in d["items"]:
        price = money(quantity * cents)
        lines.append(((f"{quantity} x " if quantity > 1 else "") + name, price if r.random() < .5 else price[1:], LEFT))
    lines.append(("", None, RULE))
    if r.random() < .5:
        lines.append((r.choice(["Subtotal", "SUBTOTAL", "Sub Total"]), money(d["total"] - d["gst"]), LEFT))
    lines.append((r.choice(["GST", "GST 10%", "Incl GST", "GST Included"]), money(d["gst"]), LEFT))
    lines.append((r.choice(["TOTAL", "Total", "TOTAL AUD", "Amount Due"]), money(d["total"]), LEFT))
    lines.append((r.choice(["Paid ", "Tender ", "Payment: "]) + d["payment"], None, LEFT))
    if grid[0] > 1 and r.random() < .6:
        lines.append((r.choice(["Thank you", "Please come again", "Have a great day"]), None, CENTRED))
    return lines


# ---- how it is drawn -----------------------------------------------------------------------------


def find_fonts(folder):
    """The files of FONTS in their order; names what is missing and the package that has it."""
    have = {os.path.basename(path): path for path in glob.glob(os.path.join(folder, "**", "*.ttf"), recursive=True)}
    package_of = {f"{name}.ttf": package for package, names in FONTS.items() for name in names.split()}
    missing = sorted({package_of[name] for name in package_of if name not in have})
    if missing:
        raise FileNotFoundError(f"fonts are missing in {folder}: apt-get install {' '.join(missing)}")
    return [have[name] for name in sorted(package_of)]


class Pen:
    """One font of one receipt in every size: widths, and sizes that fit."""
    cache = {}

    def __init__(self, path, drawing, room):
        self.path, self.drawing, self.room = path, drawing, room

    def font(self, size):
        key = self.path, size
        if key not in Pen.cache:
            Pen.cache[key] = ImageFont.truetype(self.path, size)
        return Pen.cache[key]

    def width(self, text, size):
        return self.drawing.textlength(text, font=self.font(size))

    def fit(self, line, size):
        """The largest size up to `size`, not below 7, in which the line fits."""
        left, right, _ = line
        while size > 7 and self.width(left, size) + (self.width(right, size) + 6 if right else 0) > self.room:
            size -= 1
        return size


def draw_line(pen, line, y, size, margin, image_width, pitch, ink):
    left, right, style = line
    if style == RULE:
        pen.drawing.line([margin, y + pitch / 2, image_width - margin, y + pitch / 2], fill=ink)
        return
    x = margin if style == LEFT else (image_width - pen.width(left, size)) / 2
    pen.drawing.text((x, y), left, font=pen.font(size), fill=ink)
    if style == LEFT and right:
        pen.drawing.text((image_width - margin - pen.width(right, size), y), right, font=pen.font(size), fill=ink)


def draw_page(r, lines, grid, font_path):
    """The lines on paper, before the scanner's noise. Order of the random draws: part of the format."""
    height, width = grid[0] * TILE, grid[1] * TILE
    highest = height / (len(lines) + 1.5)
    size = max(9, int(min(highest / 1.22, r.uniform(11, 15) if grid[1] == 1 else r.uniform(13, 22))))
    paper, ink = r.randint(225, 255), r.randint(0, 70)
    image = Image.new("L", (width, height), paper if r.random() < .8 else 0)
    drawing = ImageDraw.Draw(image)
    margin = r.randint(4, 14)
    pen = Pen(font_path, drawing, width - 2 * margin)
    base = min(pen.fit(line, size) for line in lines if line[2] != RULE) if r.random() < .6 else size
    base = max(base, 8)
    pitch = min(highest, base * r.uniform(1.2, 1.7))
    y = r.uniform(3, max(4, height - pitch * (len(lines) + .6)))
    if image.getpixel((0, 0)) == 0:              # paper on a dark table
        drawing.rectangle([2, max(0, y - 6), width - 3, min(height - 1, y + pitch * (len(lines) + .8))], fill=paper)
    for line in lines:
        draw_line(pen, line, y, pen.fit(line, base + (2 if line[2] == NAME else 0)), margin, width, pitch, ink)
        y += pitch
    if r.random() < .4:
        image = image.rotate(r.uniform(-1.2, 1.2), resample=Image.BILINEAR, fillcolor=paper)
    return image


def draw_paper(seed, fonts):
    """(the image before the scanner, None or the scanner's noise (seed, deviation), (rows, columns) of tiles, the font's path, true fields)"""
    r = random.Random(seed)
    d = draw_record(r)
    grid = r.choices(GRIDS, GRID_WEIGHTS)[0]
    font_path = r.choice(fonts)
    image = draw_page(r, layout_lines(r, d, grid), grid, font_path)
    noise = (r.getrandbits(32), r.uniform(2, 10)) if r.random() < .5 else None
    return image, noise, grid, font_path, true_fields(d)


def scan(image, noise):
    """Grey pixels of an image or array of 0 to 255, with noise."""
    pixels = np.asarray(image, dtype=np.float32)
    if noise:
        pixels = pixels + np.random.default_rng(noise[0]).normal(0, noise[1], pixels.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def draw_receipt(seed, fonts):
    """(grey pixels, (rows, columns) of tiles, the font's path, true fields)"""
    image, noise, grid, font_path, fields = draw_paper(seed, fonts)
    return scan(image, noise), grid, font_path, fields


# ---- a folder of them ----------------------------------------------------------------------------


def draws_as_trained():
    """True where this machine's Pillow draws to the pixel what the demo model was trained on."""
    return features.version("freetype2") == "2.12.1" and features.check("raqm")


def write_folder(folder, seeds, fonts):
    """Returns the SHA-256 of all pixels in order."""
    digest = hashlib.sha256()
    os.makedirs(folder, exist_ok=True)
    partial = os.path.join(folder, "truth.jsonl.partial")
    with open(partial, "w", encoding="utf-8") as truth:
        for seed in seeds:
            pixels, grid, font_path, fields = draw_receipt(seed, fonts)
            name = f"r{seed}.png"
            Image.fromarray(pixels).save(os.path.join(folder, name), optimize=True)
            digest.update(pixels.tobytes())
            truth.write(json.dumps(dict(id=seed, file=name, prompt=PROMPT, grid=grid, font=os.path.basename(font_path)[:-4], fields=fields)) + "\n")
    os.replace(partial, os.path.join(folder, "truth.jsonl"))
    return digest.hexdigest()


def main():
    options = argparse.ArgumentParser(description="Draws synthetic receipts and writes the truth about them.")
    options.add_argument("folder", help="where r<seed>.png and truth.jsonl go")
    options.add_argument("--count", type=int, default=300)
    options.add_argument("--first-seed", type=int, default=100000)
    options.add_argument("--fonts", default=FONT_FOLDER, help=f"searched with its subfolders (default {FONT_FOLDER})")
    args = options.parse_args()
    try:
        fonts = find_fonts(args.fonts)
    except FileNotFoundError as error:
        sys.exit(f"receipts.py: {error}")
    if not draws_as_trained():
        print(f"receipts.py: FreeType {features.version('freetype2')}{'' if features.check('raqm') else ' without raqm'}: a few pixels will "
              "differ from what the model was trained on (Debian 12's python3-pil draws the same)", file=sys.stderr)
    digest = write_folder(args.folder, range(args.first_seed, args.first_seed + args.count), fonts)
    print(f"{args.count} receipts in {args.folder}, pixels' SHA-256 {digest}")


if __name__ == "__main__":
    main()
