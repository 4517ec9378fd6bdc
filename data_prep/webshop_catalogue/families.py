"""What the generated shop sells: thirty kinds of product, with the words their pages are made of."""

from dataclasses import dataclass

_COLORS = (
    "black white navy red olive charcoal burgundy teal lavender mustard ivory coral grey sand turquoise plum rust mint"
)
COLORS = tuple(_COLORS.split())
CLOTHES_SIZES = ("x-small", "small", "medium", "large", "x-large", "xx-large", "3x-large")
SHOE_SIZES = ("6", "6.5", "7", "7.5", "8", "8.5", "9", "9.5", "10", "11", "12")
SHOE_WIDTHS = ("narrow", "regular width", "wide", "extra wide")
FITS = ("men", "women", "youth")
BOTTLES = ("1 fl oz", "2 fl oz", "4 fl oz", "6.76 fl oz", "8 fl oz (pack of 2)", "12 fl oz")
FOOD_SIZES = ("6 ounce", "12 ounce", "1 pound", "6 ounce (pack of 4)", "12 ounce (pack of 6)", "2.2 pound")
SCENTS = ("unscented", "rose", "citrus", "sandalwood", "lavender mint", "eucalyptus", "vanilla bean", "green tea")
FLAVORS = ("original", "sea salt", "smoked paprika", "honey", "dark chocolate", "cinnamon", "lime chili", "maple pecan")
CABLES = ("1.5 feet", "3 feet", "6 feet", "10 feet", "16 feet")
STORAGE = ("16gb", "32gb", "64gb", "128gb", "256gb")
STYLES = ("basic set", "deluxe set", "travel kit", "replacement part")
ROOMS = ("twin", "full", "queen", "king", "california king")
RUGS = ("2 x 3 ft", "3 x 5 ft", "4 x 6 ft", "5 x 8 ft", "8 x 10 ft", "9 x 12 ft")
SHELVES = ("24 inch", "31 inch", "36 inch", "47 inch", "60 inch")


@dataclass(frozen=True)
class Family:
    """One kind of product. `options` names choices and the values they are drawn from; prices are in dollars."""

    category: str
    product_category: str
    query: str
    nouns: tuple[str, ...]
    attributes: tuple[str, ...]
    uses: tuple[str, ...]
    prices: tuple[float, float]
    options: dict[str, tuple[str, ...]]


def _family(
    category: str,
    path: str,
    query: str,
    nouns: str,
    attributes: str,
    uses: str,
    prices: tuple[float, float],
    **options: tuple[str, ...],
) -> Family:
    def parts(text: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in text.split(","))

    return Family(
        category, path, query, parts(nouns), parts(attributes), parts(uses), prices,
        {name.replace("_", " "): values for name, values in options.items()},
    )  # fmt: skip


FAMILIES = (
    _family(
        "fashion", "Clothing, Shoes & Jewelry › Men › Shoes › Loafers & Slip-Ons", "men's loafers & slip-ons",
        "Loafer, Slip-On Shoe, Moccasin",
        "rubber sole, arch support, non slip, memory foam, leather sole, ethylene vinyl, day comfort, hand stitched",
        "office days, long walks, driving", (25, 130), color=COLORS, size=SHOE_SIZES, width=SHOE_WIDTHS,
    ),
    _family(
        "fashion", "Clothing, Shoes & Jewelry › Women › Shoes › Sandals", "women's sandals",
        "Sandal, Wedge Sandal, Slide",
        "open toe, ankle strap, rubber outsole, cushioned insole, quick drying, faux leather, vegan leather, high heel",
        "the beach, summer evenings, travel", (18, 95), color=COLORS, size=SHOE_SIZES,
    ),
    _family(
        "fashion", "Clothing, Shoes & Jewelry › Men › Clothing › Shirts › T-Shirts", "men's t-shirts & tanks",
        "T-Shirt, Crew Neck Tee, Pocket Tee",
        "machine wash, classic fit, needle sleeve, moisture wicking, short sleeve, quality polyester, ring spun cotton",
        "the gym, the garden, weekends", (9, 38), fit_type=FITS, color=COLORS, size=CLOTHES_SIZES,
    ),
    _family(
        "fashion", "Clothing, Shoes & Jewelry › Women › Clothing › Dresses", "women's dresses",
        "Midi Dress, Wrap Dress, Shirt Dress",
        "long sleeve, elastic waist, polyester spandex, hand wash, v neck, button closure, tummy control, soft fabric",
        "weddings, the office, parties", (22, 120), color=COLORS, size=CLOTHES_SIZES,
    ),
    _family(
        "fashion", "Clothing, Shoes & Jewelry › Women › Clothing › Active › Leggings", "women's leggings",
        "Leggings, Yoga Pants, Running Tights",
        "high waist, tummy control, nylon spandex, quick drying, four way stretch, side pockets, squat proof",
        "yoga, running, lounging", (14, 62), color=COLORS, size=CLOTHES_SIZES,
    ),
    _family(
        "fashion", "Clothing, Shoes & Jewelry › Men › Clothing › Jackets & Coats", "men's jackets & coats",
        "Rain Jacket, Softshell Coat, Field Jacket",
        "water resistant, winter warm, fleece lined, zipper closure, long lasting, drawstring waist, regular fit",
        "hiking, commuting, camping", (35, 190), color=COLORS, size=CLOTHES_SIZES,
    ),
    _family(
        "beauty", "Beauty & Personal Care › Hair Care › Shampoo & Conditioner › Shampoos", "shampoo & conditioner",
        "Shampoo, Clarifying Shampoo, Shampoo Bar",
        "sulfate free, paraben free, cruelty free, tea tree, argan oil, color treated, natural ingredients",
        "dry scalp, curls, daily washing", (6, 34), scent=SCENTS, size=BOTTLES,
    ),
    _family(
        "beauty", "Beauty & Personal Care › Skin Care › Body › Moisturizers", "body lotions & creams",
        "Body Lotion, Body Butter, Hand Cream",
        "shea butter, hyaluronic acid, fragrance free, dermatologist tested, sensitive skin, coconut oil, long lasting",
        "winter skin, after the shower, the desk", (5, 42), scent=SCENTS, size=BOTTLES,
    ),
    _family(
        "beauty", "Beauty & Personal Care › Makeup › Lips › Lipstick", "lipsticks",
        "Lipstick, Lip Stain, Lip Balm",
        "highly pigmented, long lasting, cruelty free, easy apply, high quality, seed oil, alcohol free, matte finish",
        "evenings out, every day, a photo shoot", (4, 29), color=COLORS,
    ),
    _family(
        "beauty", "Beauty & Personal Care › Fragrance › Unisex", "eau de parfum",
        "Eau de Parfum, Cologne Spray, Body Mist",
        "long lasting, alcohol free, travel size, high quality, natural ingredients, bpa free, essential oils",
        "travel, gifts, formal dinners", (12, 99), scent=SCENTS, size=BOTTLES,
    ),
    _family(
        "beauty", "Beauty & Personal Care › Oral Care › Toothbrushes", "toothbrushes",
        "Electric Toothbrush, Toothbrush, Toothbrush Heads",
        "easy use, oral hygiene, soft bristles, fresh breath, bpa free, sensitive teeth, teeth whitening, eco friendly",
        "sensitive gums, children, travel", (5, 89), color=COLORS, style=STYLES,
    ),
    _family(
        "electronics", "Electronics › Headphones › Earbud Headphones", "earbud headphones",
        "Wireless Earbuds, Earphones, Sport Headphones",
        "noise cancelling, hands free, fast charging, stereo sound, high definition, water resistant, long battery",
        "running, phone calls, the train", (15, 180), color=COLORS, style=STYLES,
    ),
    _family(
        "electronics", "Electronics › Accessories & Supplies › Cables › HDMI Cables", "hdmi cables",
        "HDMI Cable, Display Cable, Video Cord",
        "gold plated, high speed, ultra hd, plug play, blu ray, nylon braided, 1080p, aluminum alloy",
        "home theater, game consoles, projectors", (6, 45), size=CABLES, color=COLORS,
    ),
    _family(
        "electronics", "Electronics › Camera & Photo › Tripods & Monopods", "tripods & monopods",
        "Tripod, Phone Stand, Monopod",
        "carbon fiber, quick release, easy carry, light weight, aluminum alloy, carrying case, heavy duty, 360 degree",
        "vlogging, birdwatching, night shots", (14, 160), color=COLORS, style=STYLES,
    ),
    _family(
        "electronics", "Electronics › Computers & Accessories › Tablets", "tablets",
        "Tablet, Drawing Tablet, Reading Tablet",
        "quad core, high performance, dual band, 1080p hd, long battery, eye protection, core processor, usb c port",
        "reading, sketching, school", (59, 420), size=STORAGE, color=COLORS,
    ),
    _family(
        "electronics", "Electronics › Portable Audio & Video › Portable Speakers", "portable bluetooth speakers",
        "Bluetooth Speaker, Outdoor Speaker, Shower Speaker",
        "water resistant, stereo sound, hands free, long battery, wireless charging, high power, usb port, deep bass",
        "the patio, picnics, the bathroom", (17, 220), color=COLORS,
    ),
    _family(
        "electronics", "Cell Phones & Accessories › Cases, Holsters & Sleeves › Basic Cases", "phone cases",
        "Phone Case, Wallet Case, Bumper Cover",
        "wireless charging, drop protection, tempered glass, hands free, carbon fiber, easy install, non slip",
        "builders, festivals, every pocket", (7, 48), color=COLORS, style=STYLES,
    ),
    _family(
        "grocery", "Grocery & Gourmet Food › Snack Foods › Nuts & Seeds", "nuts & seeds",
        "Roasted Almonds, Mixed Nuts, Pumpkin Seeds",
        "gluten free, non gmo, dairy free, low sodium, plant based, protein serving, keto friendly, kosher certified",
        "trail mixes, lunch boxes, baking", (5, 46), flavor_name=FLAVORS, size=FOOD_SIZES,
    ),
    _family(
        "grocery", "Grocery & Gourmet Food › Beverages › Coffee › Ground Coffee", "ground coffee",
        "Ground Coffee, Cold Brew Coffee, Espresso Blend",
        "fair trade, certified organic, low acid, artificial flavors free, sugar free, single origin, dark roast",
        "french press, drip machines, iced drinks", (7, 52), flavor_name=FLAVORS, size=FOOD_SIZES,
    ),
    _family(
        "grocery", "Grocery & Gourmet Food › Breakfast Foods › Granola", "granola & muesli",
        "Granola, Muesli, Oat Clusters",
        "whole grain, gluten free, high fiber, soy free, non gmo, low sugar, plant based, nut free",
        "yogurt bowls, hikes, quick breakfasts", (4, 33), flavor_name=FLAVORS, size=FOOD_SIZES,
    ),
    _family(
        "grocery", "Grocery & Gourmet Food › Herbs, Spices & Seasonings", "spices & seasonings",
        "Spice Blend, Seasoning Rub, Herb Mix",
        "gluten free, no msg, low sodium, natural ingredients, keto friendly, certified organic, hand picked",
        "grilling, soups, roast vegetables", (3, 27), flavor_name=FLAVORS, size=FOOD_SIZES,
    ),
    _family(
        "grocery", "Grocery & Gourmet Food › Beverages › Tea › Herbal Tea", "herbal tea",
        "Herbal Tea, Tea Sampler, Loose Leaf Tea",
        "caffeine free, usda organic, fair trade, sugar free, individually wrapped, non gmo, perfect gift, bpa free",
        "bedtime, iced tea, visitors", (4, 31), flavor_name=FLAVORS, size=FOOD_SIZES,
    ),
    _family(
        "garden", "Home & Kitchen › Furniture › Living Room Furniture › Ottomans", "ottomans",
        "Storage Ottoman, Footstool, Pouf",
        "space saving, easy assemble, high density, faux leather, solid wood, living room, button tufted",
        "small flats, hallways, game nights", (29, 210), color=COLORS, size=SHELVES,
    ),
    _family(
        "garden", "Home & Kitchen › Bedding › Quilts & Sets", "bedspreads & coverlets",
        "Quilt Set, Bedspread, Coverlet",
        "machine washable, queen size, super soft, king size, easy clean, microfiber fill, double sided",
        "guest rooms, all seasons, cabins", (27, 150), color=COLORS, size=ROOMS,
    ),
    _family(
        "garden", "Home & Kitchen › Home Décor › Area Rugs", "area rugs",
        "Area Rug, Runner Rug, Shag Rug",
        "non slip, machine washable, stain resistant, spot clean, living room, dining room, easy clean, hand woven",
        "hallways, nurseries, living rooms", (19, 260), color=COLORS, size=RUGS,
    ),
    _family(
        "garden", "Home & Kitchen › Furniture › Home Office Furniture › Bookcases", "bookcases",
        "Bookcase, Ladder Shelf, Bookshelf",
        "easy assemble, solid wood, steel frame, wall mounted, storage space, heavy duty, engineered wood, anti tip",
        "studies, kitchens, plant corners", (34, 240), color=COLORS, size=SHELVES,
    ),
    _family(
        "garden", "Home & Kitchen › Lighting › Lamps › Table Lamps", "table lamps",
        "Table Lamp, Desk Lamp, Bedside Lamp",
        "energy efficient, glass shade, bronze finish, touch control, usb port, dimmable light, clear glass",
        "reading corners, offices, bedrooms", (16, 140), color=COLORS, style=STYLES,
    ),
    _family(
        "garden", "Home & Kitchen › Kitchen & Dining › Storage › Food Containers", "food storage containers",
        "Food Container, Lunch Box, Meal Prep Box",
        "dishwasher safe, bpa free, stainless steel, leak proof, lead free, easy clean, freezer safe, air tight",
        "meal prep, picnics, school", (8, 64), color=COLORS, style=STYLES,
    ),
    _family(
        "garden", "Patio, Lawn & Garden › Gardening › Planters", "planters",
        "Planter, Hanging Planter, Window Box",
        "drainage holes, weather resistant, hand painted, easy clean, eco friendly, heavy duty, self watering",
        "balconies, herbs, window sills", (9, 85), color=COLORS, size=SHELVES,
    ),
    _family(
        "garden", "Home & Kitchen › Bath › Towels › Bath Towels", "bath towels",
        "Bath Towel, Towel Set, Hand Towel",
        "quick drying, machine washable, long staple cotton, high absorbency, eco friendly, super soft, lint free",
        "guest baths, the pool, the gym", (8, 72), color=COLORS, style=STYLES,
    ),
)  # fmt: skip
