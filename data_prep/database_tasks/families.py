"""Table families: what the generated tables are about. All contents are invented.

Training and test families share no table name and no column name, so that test tables are new to a model.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """One kind of table: a key column of unique values, text columns that repeat values, number columns.

    Numbers of one column all have the same count of digits, so that text order is number order: the columns
    are TEXT, as in AgentBench, and MAX or ORDER BY then need no CAST.
    """

    tables: tuple[str, ...]
    noun: str
    nouns: str
    key: str
    key_values: tuple[str, ...]
    texts: dict[str, tuple[str, ...]]
    numbers: dict[str, int]
    """Column name to count of digits."""


_PEOPLE = ("Anna", "Boris", "Clara", "Dario", "Elena", "Felix", "Greta", "Hugo", "Irene", "Jonas", "Karin", "Leo")
_TOWNS = ("Alder", "Brook", "Cedar", "Dover", "Elmdale", "Fairview", "Grove", "Hilton")
_FIRMS = ("Apex", "Bolt", "Crest", "Delta", "Echo", "Fusion")
_COLORS = ("red", "blue", "green", "black", "white", "silver")
_TITLES = (
    "Silent River", "Golden Key", "Lost Island", "Winter Song", "Broken Clock", "Hidden Door", "Paper Moon",
    "Stone Garden", "Dark Forest", "Morning Star", "Last Letter", "Empty House",
)  # fmt: skip

_OTHER_PEOPLE = ("Marta", "Nils", "Olga", "Pavel", "Quinn", "Rosa", "Sven", "Tara", "Ulrich", "Vera", "Wanda", "Yuri")
_OTHER_TOWNS = ("Ashford", "Bolton", "Carlow", "Dunmore", "Eastham", "Foxton", "Glenwood", "Harlow")
_OTHER_FIRMS = ("Nimbus", "Orbit", "Pioneer", "Quartz", "Ridge", "Summit")

TRAIN_FAMILIES = (
    Family(("books", "library"), "book", "books", "title", _TITLES,
           {"author": _PEOPLE, "genre": ("poetry", "crime", "travel", "history")}, {"pages": 3, "copies": 2}),
    Family(("cars", "garage"), "car", "cars", "model",
           ("Falcon", "Comet", "Tiger", "Breeze", "Nova", "Viper", "Lynx", "Storm", "Arrow", "Puma"),
           {"color": _COLORS, "maker": _FIRMS}, {"mileage": 5, "seats": 2}),
    Family(("films", "cinema"), "film", "films", "film", _TITLES,
           {"director": _PEOPLE, "studio": _FIRMS}, {"minutes": 3, "awards": 2}),
    Family(("hotels", "lodging"), "hotel", "hotels", "hotel",
           ("Grand Plaza", "Sea View", "Royal Inn", "Park House", "City Lodge", "Lake Palace", "Old Mill", "Sun Court"),
           {"city": _TOWNS, "chain": _FIRMS}, {"rooms": 3, "floors": 2}),
    Family(("players", "squad"), "player", "players", "player", _PEOPLE,
           {"team": ("Lions", "Hawks", "Sharks", "Wolves"), "position": ("keeper", "striker", "winger")},
           {"goals": 2, "age": 2}),
    Family(("plants", "greenhouse"), "plant", "plants", "plant",
           ("fern", "ivy", "lily", "rose", "basil", "mint", "tulip", "orchid", "cactus"),
           {"soil": ("sand", "clay", "peat"), "gardener": _PEOPLE}, {"height": 3, "leaves": 2}),
    Family(("students", "classroom"), "student", "students", "student", _PEOPLE,
           {"major": ("biology", "physics", "music", "law"), "dorm": _TOWNS}, {"score": 2, "credits": 3}),
    Family(("dishes", "menu"), "dish", "dishes", "dish",
           ("lentil soup", "apple pie", "rice bowl", "fish stew", "bean salad", "corn bread", "plum cake"),
           {"chef": _PEOPLE, "cuisine": ("Greek", "Indian", "Thai", "French")}, {"price": 2, "calories": 3}),
    Family(("boats", "marina"), "boat", "boats", "boat",
           ("Sea Queen", "Blue Whale", "Wind Rider", "Pearl", "Albatross", "Mermaid", "Northern Light"),
           {"captain": _PEOPLE, "harbor": _TOWNS}, {"length": 2, "speed": 2}),
    Family(("songs", "playlist"), "song", "songs", "song", _TITLES,
           {"singer": _PEOPLE, "album": ("Horizon", "Mirror", "Spring", "Echoes")}, {"seconds": 3, "plays": 4}),
    Family(("doctors", "hospital"), "doctor", "doctors", "doctor", _PEOPLE,
           {"clinic": _TOWNS, "specialty": ("heart", "skin", "eyes", "bones")}, {"patients": 3, "salary": 5}),
    Family(("lakes", "waters"), "lake", "lakes", "lake",
           ("Mira", "Tolva", "Senka", "Orrin", "Halde", "Brisa", "Kelda", "Vanto"),
           {"country": ("Norway", "Chile", "Canada", "Kenya"), "region": _TOWNS}, {"depth": 3, "area": 4}),
    Family(("orders", "purchases"), "order", "orders", "code",
           ("A17", "B42", "C08", "D93", "E56", "F21", "G64", "H35", "K79"),
           {"customer": _PEOPLE, "status": ("open", "paid", "sent", "late")}, {"quantity": 2, "amount": 3}),
    Family(("games", "arcade"), "game", "games", "game",
           ("Pixel Quest", "Star Miner", "Castle Rush", "Moon Racer", "Dragon Run", "Robot Maze", "Jungle Hop"),
           {"publisher": _FIRMS, "platform": ("console", "mobile", "desktop")}, {"levels": 2, "sales": 4}),
)  # fmt: skip

TEST_FAMILIES = (
    Family(("trains", "railway"), "train", "trains", "train",
           ("Red Arrow", "Night Owl", "Coast Star", "Iron Duke", "Swift", "Meteor", "Valley Line"),
           {"operator": _OTHER_FIRMS, "station": _OTHER_TOWNS}, {"wagons": 2, "delay": 2}),
    Family(("bridges", "crossings"), "bridge", "bridges", "bridge",
           ("Anchor", "Castle", "Union", "Harbour", "Lantern", "Victory", "Willow"),
           {"river": ("Tarn", "Isel", "Drava", "Osk"), "material": ("steel", "stone", "wood", "concrete")},
           {"span": 3, "lanes": 2}),
    Family(("employees", "staff"), "employee", "employees", "employee", _OTHER_PEOPLE,
           {"department": ("finance", "support", "design", "research"), "office": _OTHER_TOWNS},
           {"wage": 4, "projects": 2}),
    Family(("museums", "galleries"), "museum", "museums", "museum",
           ("Folk Hall", "Art Barn", "Coin House", "Toy Museum", "Sea Gallery", "Clock Tower", "Glass Works"),
           {"curator": _OTHER_PEOPLE, "district": _OTHER_TOWNS}, {"exhibits": 3, "visitors": 4}),
    Family(("horses", "stable"), "horse", "horses", "horse",
           ("Thunder", "Misty", "Shadow", "Ginger", "Blaze", "Pepper", "Duchess"),
           {"rider": _OTHER_PEOPLE, "breed": ("Arabian", "Shire", "Morgan", "Pinto")}, {"weight": 3, "races": 2}),
    Family(("wines", "cellar"), "wine", "wines", "wine",
           ("Old Oak", "Ruby Hill", "Clear Creek", "Sunny Slope", "Black Barrel", "Wild Rose", "Amber"),
           {"grape": ("merlot", "syrah", "riesling"), "vineyard": _OTHER_TOWNS}, {"bottles": 3, "rating": 2}),
    Family(("phones", "handsets"), "phone", "phones", "phone",
           ("Spark", "Prism", "Halo", "Vertex", "Onyx", "Titan", "Zephyr"),
           {"brand": _OTHER_FIRMS, "carrier": ("Linko", "Wavetel", "Airnet")}, {"storage": 3, "battery": 4}),
    Family(("concerts", "festival"), "concert", "concerts", "concert",
           ("Jazz Night", "Rock Dawn", "Choir Day", "Drum Fest", "Opera Eve", "Folk Week", "Piano Hour"),
           {"band": ("Comets", "Rivers", "Foxes", "Owls"), "venue": _OTHER_TOWNS}, {"tickets": 4, "fee": 2}),
)  # fmt: skip

FAMILIES = {"train": TRAIN_FAMILIES, "test": TEST_FAMILIES}
